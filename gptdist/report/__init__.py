"""One page of a run: its curves, attempts, checkpoints, data and texts, from its records; no torch."""
