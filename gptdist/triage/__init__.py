"""What happened at a step of a run: numbers, batch, gradients, and the way back."""
