"""Import roots of Lightning: ``pytorch_lightning`` and ``lightning.pytorch``.

They hold the same code twice, so that a class of one is not that of the other.
"""

import functools
import importlib
from importlib.util import find_spec
from typing import Any

from coreai_opt.pruning import PruningError
from coreai_opt.requirements import release_of

# Root -> where the callbacks for it are.
PACKAGES = {
    "pytorch_lightning": "lightning_callbacks",
    "lightning.pytorch": "lightning_callbacks.lightning_pytorch",
}
ROOTS = tuple(PACKAGES)

# Public classes that older versions of Lightning do not have, by the version that brought them.
LATER = {"ModelParallelStrategy": "2.4", "WeightAveraging": "2.6"}


@functools.cache
def installed_root() -> str:
    """Return the import root that is installed; of two it is ``pytorch_lightning``."""
    for root in ROOTS:
        # A folder that happens to have the name has no origin.
        spec = find_spec(root.partition(".")[0])
        if spec is not None and spec.origin is not None:
            return root
    raise ModuleNotFoundError(
        "the callbacks need Lightning, and neither of its packages is installed; allowed: "
        "pip install pytorch-lightning, or pip install lightning",
        name=ROOTS[0],
    )


def root_of(kind: type) -> str:
    """Return the import root that a class of Lightning's, or one derived from it, comes from.

    For any other class it is ``installed_root()``.
    """
    for ancestor in kind.__mro__:
        for root in ROOTS:
            if f"{ancestor.__module__}.".startswith(f"{root}."):
                return root
    return installed_root()


def require_one_root(callback: object, trainer: object) -> None:
    """Refuse a callback of the other import root, which the trainer does not know."""
    own, wanted = root_of(type(callback)), root_of(type(trainer))
    if own != wanted:
        name = type(callback).__name__
        raise PruningError(
            f"this {name} is one of {own}, and the trainer one of {wanted}, which would not "
            f"know it; allowed: from {PACKAGES[wanted]} import {name}"
        )


def require_version(what: str, owner: object, oldest: str) -> None:
    """Refuse something (``what``, a class) that the Lightning of a trainer is too old for."""
    if not is_at_least(owner, oldest):
        root = root_of(type(owner))
        raise PruningError(
            f"{what} needs Lightning {oldest} or newer, and {root} is {_version(root)}; allowed: "
            f"pip install -U {root.partition('.')[0].replace('_', '-')}, or training without it"
        )


def is_at_least(owner: object, version: str) -> bool:
    """Return whether the Lightning of a trainer or a module is this version or newer."""
    return release_of(_version(root_of(type(owner)))) >= release_of(version)


def _version(root: str) -> str:
    version: str = importlib.import_module(root).__version__
    return version


def of_root(owner: object, module: str, name: str) -> Any:
    """Return an attribute of a module below the import root of a trainer or module of Lightning."""
    return getattr(importlib.import_module(f"{root_of(type(owner))}.{module}"), name)


def kinds_of_root(owner: object, module: str, *names: str) -> tuple[Any, ...]:
    """Return classes as ``of_root`` does, without those that this Lightning is too old for."""
    home = importlib.import_module(f"{root_of(type(owner))}.{module}")
    there = [name for name in names if name not in LATER or hasattr(home, name)]
    return tuple(getattr(home, name) for name in there)


def callbacks_of(trainer: Any, *names: str) -> list[Any]:
    """Return the callbacks of a trainer, or those of Lightning's classes with some names."""
    callbacks: list[Any] = trainer.callbacks
    kinds = kinds_of_root(trainer, "callbacks", *names)
    return [one for one in callbacks if isinstance(one, kinds)] if names else list(callbacks)
