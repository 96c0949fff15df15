"""Blind side-by-side ratings of two models by people: a local page, votes in SQLite, win rates."""
