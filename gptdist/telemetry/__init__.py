"""Metrics, the console line, TensorBoard and the run ledger."""
