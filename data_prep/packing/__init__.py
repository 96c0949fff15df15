"""From tokenized documents to shards: runs sorted by key, where shards end, and how documents lie in them."""
