"""Pruning experiments for PyTorch, driven by Hydra and Lightning."""

__all__ = ["__version__"]

__version__ = "0.1.0"
