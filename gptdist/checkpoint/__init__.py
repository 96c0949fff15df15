"""Layout-free checkpoints: written by any layout, read by any other."""
