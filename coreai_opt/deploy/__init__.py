"""Deployment: what a sparse model becomes on a target, and what that gains."""
