"""Callbacks for a ``lightning.pytorch.Trainer``, under the same names.

Each is one of ours and a ``lightning.pytorch.Callback`` as well. Their state goes by the same
names, so that a checkpoint of one root is read by the callbacks of the other.
"""

import importlib
from typing import Any

from lightning_callbacks import (
    progress_bar,
    pruned_weights,
    resumable_checkpoint,
    scheduled_pruning,
    sparsity_monitor,
    target_gate,
    target_sparsity,
)

__all__ = [
    "PrunedWeights",
    "ResumableCheckpoint",
    "ScheduledPruning",
    "SparsityMonitor",
    "SparsityProgressBar",
    "TargetGate",
    "TargetSparsityCheckpoint",
    "TargetSparsityEarlyStopping",
]

# As values without types: the package need not be there where types are checked.
_lightning: Any = importlib.import_module("lightning.pytorch.callbacks")
_Callback: Any = _lightning.Callback
_Checkpoint: Any = _lightning.ModelCheckpoint
_EarlyStopping: Any = _lightning.EarlyStopping
_ProgressBar: Any = _lightning.RichProgressBar
_Gate = target_sparsity.TargetSparsityGate


class ScheduledPruning(scheduled_pruning.ScheduledPruning, _Callback):  # type: ignore[misc]
    __doc__ = scheduled_pruning.ScheduledPruning.__doc__


class SparsityMonitor(sparsity_monitor.SparsityMonitor, _Callback):  # type: ignore[misc]
    __doc__ = sparsity_monitor.SparsityMonitor.__doc__


class ResumableCheckpoint(resumable_checkpoint.ResumableCheckpoint, _Callback):  # type: ignore[misc]
    __doc__ = resumable_checkpoint.ResumableCheckpoint.__doc__


class SparsityProgressBar(progress_bar.SparsityColumn, _ProgressBar):  # type: ignore[misc]
    __doc__ = progress_bar.SparsityProgressBar.__doc__


class TargetGate(target_gate.TargetGate, _Callback):  # type: ignore[misc]
    __doc__ = target_gate.TargetGate.__doc__


class PrunedWeights(pruned_weights.PrunedWeights, _Callback):  # type: ignore[misc]
    __doc__ = pruned_weights.PrunedWeights.__doc__


class TargetSparsityCheckpoint(target_sparsity.SavesAtTarget, _Gate, _Checkpoint):  # type: ignore[misc]
    __doc__ = target_sparsity.TargetSparsityCheckpoint.__doc__


class TargetSparsityEarlyStopping(_Gate, _EarlyStopping):  # type: ignore[misc]
    __doc__ = target_sparsity.TargetSparsityEarlyStopping.__doc__
