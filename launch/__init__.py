"""Start ranks on one machine or many."""
