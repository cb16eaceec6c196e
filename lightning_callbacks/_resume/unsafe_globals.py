"""Unsafe globals: objects in a checkpoint that are neither tensors nor plain values."""

import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

# What values raise that cannot be pickled at all.
UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError, RuntimeError)


class NotUnpickled:
    """Stands for what a file holds beside weights: takes all arguments, keeps and does nothing."""

    path: str  # dotted, of what it stands for

    def __new__(cls, *args: Any, **kwargs: Any) -> "NotUnpickled":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class ForeignObjectsWarning(UserWarning):
    """A checkpoint holds objects that ``torch.load(weights_only=True)`` does not make again."""


def foreign_in_file(path: str | Path) -> list[str]:
    """Return the dotted names of what ``torch.load(path, weights_only=True)`` would refuse.

    A file that is no checkpoint holds nothing.
    """
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        return []  # not torch's zip: whoever loads it says so


def foreign_in_value(value: Any) -> list[str]:
    """Return the same of a checkpoint that holds one value.

    Example:
        >>> foreign_in_value({"lr": 0.1, "sizes": (64, 10)}), foreign_in_value(foreign_in_file)
        ([], ['lightning_callbacks._resume.unsafe_globals.foreign_in_file'])
    """
    content = io.BytesIO()
    try:
        torch.save(value, content)
    except UNPICKLABLE:
        return [f"{type(value).__module__}.{type(value).__qualname__}"]
    content.seek(0)
    return sorted(get_unsafe_globals_in_checkpoint(content))


def load_without_foreign(path: str | Path, **options: Any) -> Any:
    """Return what a file holds, with a ``NotUnpickled`` for each object that torch does not make.

    Nothing foreign is imported or called. What torch reads in no case, as a call of ``os.system``,
    is a ``pickle.UnpicklingError``. The options are those of ``torch.load``.
    """
    stand_ins: list[Any] = [(_stand_in(name), name) for name in foreign_in_file(path)]
    with warnings.catch_warnings(), safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # guesses about files that are no checkpoints
        return torch.load(path, map_location="cpu", weights_only=True, **options)


def _stand_in(path: str) -> Callable[..., Any]:
    # torch fills no dict but a true one. The nodes of OmegaConf have one of these.
    if path == "collections.defaultdict":
        return lambda *args: {}
    return type(path.rpartition(".")[2], (NotUnpickled,), {"path": path})
