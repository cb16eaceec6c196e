"""Shared warm-up: dense training that one run of a sweep does for others."""
