"""Lightning versions: import roots, versions, ranks, length of a training."""
