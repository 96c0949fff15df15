"""Pruning: zeros in weights, and smaller matrices."""
