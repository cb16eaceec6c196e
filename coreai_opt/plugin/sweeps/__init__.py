"""Sweeps of any Hydra app: what they know of it, their settings, and what Hydra is served."""
