"""Many runs: what a sweep consists of, which of it is done, and what came out."""
