"""Pages: their encoding, what they would cost to parse, and their text."""
