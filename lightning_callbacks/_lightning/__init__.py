"""Lightning as it is found: import roots, versions, ranks, length of a training."""
