"""The steps of a preparation run, in the order in which they depend on each other."""
