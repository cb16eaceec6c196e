"""Shared warm-up: dense training that runs of a sweep do once for all."""
