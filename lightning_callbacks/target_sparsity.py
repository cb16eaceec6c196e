"""Lightning's checkpoint and early stopping, blind to epochs before the target sparsity."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from coreai_opt.pruning.targets import pruned_tensors

__all__ = ["TargetSparsityCheckpoint", "TargetSparsityEarlyStopping", "at_target_sparsity"]


def at_target_sparsity(model: pl.LightningModule) -> bool:
    """Return whether every mask of the model is at its target; a model without masks is."""
    return all(tensor.at_target for tensor in pruned_tensors(model))


class _TargetSparsityGate(pl.Callback):
    """Lets a metric through to the class behind it only when it was measured at target sparsity.

    A metric of validation counts when the masks were at target as it ran. What is looked at when a
    training epoch ends may be a mean over that epoch, or stem from an earlier validation: both must
    have been at target throughout.
    """

    _epoch_at_target = False
    _validated_at_target = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_at_target = at_target_sparsity(pl_module)
        super().on_train_epoch_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if at_target_sparsity(pl_module) and self._validated_at_target:
            super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated_at_target = at_target_sparsity(pl_module)
        if self._validated_at_target:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._epoch_at_target and self._validated_at_target:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if at_target_sparsity(pl_module):
            super().on_train_end(trainer, pl_module)


class TargetSparsityCheckpoint(_TargetSparsityGate, ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, choosing only among epochs at target sparsity.

    During a ramp the early, dense epochs score best; what they score says nothing about the pruned
    model. Arguments are those of ``ModelCheckpoint``. A model without masks is always at target.
    """


class TargetSparsityEarlyStopping(_TargetSparsityGate, EarlyStopping):
    """Lightning's ``EarlyStopping``, which cannot end a run before its ramp has ended.

    Its patience begins to count at target sparsity. Arguments are those of ``EarlyStopping``.
    """
