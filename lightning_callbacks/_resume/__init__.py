"""Exact resume: the state of a training that checkpoints of Lightning lack."""
