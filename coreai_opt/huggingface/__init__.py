"""Adapters from the callbacks of transformers.Trainer to coreai_opt.pruning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .scheduled_pruning import ScheduledPruningCallback

__all__ = ["ScheduledPruningCallback"]

__getattr__, __dir__ = lazy_exports(__name__, {".scheduled_pruning": ["ScheduledPruningCallback"]})
