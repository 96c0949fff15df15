"""Where documents come from: files, JSON Lines, Parquet, web archives, Hugging Face datasets; here or behind a URL."""
