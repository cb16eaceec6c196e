"""Search: points that a sampler chooses, run as the points of a grid."""
