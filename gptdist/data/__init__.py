"""Token shards, and which tokens sample i of a run is made of."""
