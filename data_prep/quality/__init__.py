"""Which documents are good enough: published rule sets, lists of addresses and words, a classifier."""
