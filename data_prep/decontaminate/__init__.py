"""Evaluation sets that must not be trained on: their n-grams, the documents that hold them, the report."""
