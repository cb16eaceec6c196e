"""Saving: state dicts, files and plain weights of a pruned model."""
