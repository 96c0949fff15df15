"""The account of a finished run: its rows and sums, the data card, and why a document is in or out."""
