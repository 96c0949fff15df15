"""What is looked at on every node before a job starts there, and what is said of it."""
