"""Apps as sweeps see them: what a sweep must know of one, and our own."""
