"""Weights in int8 or int4, in folders that transformers loads."""
