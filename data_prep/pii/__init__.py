"""Personal data and secrets in text: where they may stand (scan), what they are, and what replaces them."""
