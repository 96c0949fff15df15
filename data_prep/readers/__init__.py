"""Where documents come from: files, JSON Lines, Hugging Face datasets."""
