"""Ranks of a run on several devices, and GPUs that several runs share."""
