"""Ranks and their places on the parallel axes, and the process groups between them."""
