"""The training run: build, step, evaluate, save, stop."""
