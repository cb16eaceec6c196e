"""Pruning in any Hydra and Lightning app: ``python their_app.py +prune=poly prune.power=2``."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .job import PruneJob

__all__ = ["PruneJob"]

__getattr__, __dir__ = lazy_exports(__name__, {".job": ["PruneJob"]})
