"""Side by side with what a user would pick instead; prints ratios, asserts nothing."""
