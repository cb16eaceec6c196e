"""What a checkpoint holds besides tensors and plain values, found out without making any of it."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

__all__ = ["ForeignObjectsWarning", "foreign_in_file", "foreign_in_value"]

# What values raise that cannot be pickled at all.
UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError, RuntimeError)


class ForeignObjectsWarning(UserWarning):
    """A checkpoint holds objects that ``torch.load(weights_only=True)`` does not make again."""


def foreign_in_file(path: str | Path) -> list[str]:
    """Return the dotted names of what ``torch.load(path, weights_only=True)`` would refuse.

    Args:
        path: a file; one that is no checkpoint holds nothing.
    """
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        return []  # not torch's zip: whoever loads it says so


def foreign_in_value(value: Any) -> list[str]:
    """Return the same of a checkpoint that holds one value.

    Example:
        >>> foreign_in_value({"lr": 0.1, "sizes": (64, 10)}), foreign_in_value(foreign_in_file)
        ([], ['lightning_callbacks._foreign_objects.foreign_in_file'])
    """
    content = io.BytesIO()
    try:
        torch.save(value, content)
    except UNPICKLABLE:
        return [f"{type(value).__module__}.{type(value).__qualname__}"]
    content.seek(0)
    return sorted(get_unsafe_globals_in_checkpoint(content))
