"""What stands in the corpus more than once, and which of it goes."""
