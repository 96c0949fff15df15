"""The sections of the data card, each a function of the view."""
