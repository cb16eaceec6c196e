"""Adapters from Lightning's hooks to coreai_opt.pruning."""

from lightning_callbacks.progress_bar import SparsityProgressBar
from lightning_callbacks.scheduled_pruning import ScheduledPruning
from lightning_callbacks.sparsity_monitor import SparsityMonitor
from lightning_callbacks.target_sparsity import (
    TargetSparsityCheckpoint,
    TargetSparsityEarlyStopping,
)

__all__ = [
    "ScheduledPruning",
    "SparsityMonitor",
    "SparsityProgressBar",
    "TargetSparsityCheckpoint",
    "TargetSparsityEarlyStopping",
]
