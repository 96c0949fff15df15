"""From a checkpoint to a model other tools load."""
