"""The gptdist command: one file a sub-command, nothing heavy imported before it runs."""
