"""Reads handwritten digits. Nothing in here knows of pruning."""
