"""Lightning under both of its names: ``pytorch_lightning`` and ``lightning.pytorch``.

They hold the same code twice, so that a class of one is not that of the other.
"""

import functools
import importlib
from typing import Any

__all__ = ["ROOTS", "of_root", "root_of"]

ROOTS = ("pytorch_lightning", "lightning.pytorch")


def root_of(kind: type) -> str:
    """Return the import root that a class of Lightning's, or one derived from it, comes from.

    For any other class it is ``pytorch_lightning``.

    Example:
        >>> import pytorch_lightning as pl
        >>> root_of(type("Mine", (pl.Trainer,), {}))
        'pytorch_lightning'
    """
    for ancestor in kind.__mro__:
        for root in ROOTS:
            if f"{ancestor.__module__}.".startswith(f"{root}."):
                return root
    return ROOTS[0]


def of_root(owner: object, module: str, name: str) -> Any:
    """Return an attribute of a module of Lightning, from the import root of an object.

    Args:
        owner: a trainer or a module.
        module: dotted path below the root.
        name: the attribute.

    Example:
        >>> import pytorch_lightning as pl
        >>> of_root(pl.LightningModule(), "callbacks", "Timer") is pl.callbacks.Timer
        True
    """
    return _attribute(f"{root_of(type(owner))}.{module}", name)


@functools.cache
def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
