"""Checkpoint and early stopping of Lightning that ignore epochs below the target sparsity."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks._lightning.root import pl, rank_zero_warn
from lightning_callbacks._lightning.roots import require_one_root
from lightning_callbacks._metrics_at_target import MetricsAtTarget, at_target_sparsity

# In front of the classes of either root.
if TYPE_CHECKING:
    _Callback = pl.Callback
else:
    _Callback = object


class TargetSparsityGate(_Callback):
    """Lets a metric through to the class behind it only when it was measured at target sparsity.

    When that was is known by ``MetricsAtTarget``.
    """

    @cached_property
    def _measured(self) -> MetricsAtTarget:
        return MetricsAtTarget()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_one_root(self, trainer)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measured.epoch_starts(pl_module)
        super().on_train_epoch_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if self._counts(trainer, pl_module):
            super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measured.validation_starts(trainer, pl_module)
        super().on_validation_start(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measured.validation_ends(trainer)
        if self._counts(trainer, pl_module):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measured.epoch_ends()
        if self._counts(trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if at_target_sparsity(pl_module):
            super().on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"measured": self._measured.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._measured.load_state_dict(state.pop("measured", None) or self._former(state))
        super().load_state_dict(state)

    def _former(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return what a checkpoint of former versions holds; takes it out of the state."""
        gate = state.pop("gate", {})
        names = {"epoch": "epoch", "last_epoch": "last_epoch", "validation": "validated"}
        measured = {new: gate.get(f"_{old}_at_target", False) for new, old in names.items()}
        monitored = [self._monitor] if gate.get("_monitors_validation") else []
        return measured | {
            "last_validated": gate.get("_last_validated"),
            "of_validation": monitored,
        }

    def _counts(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Whether the masks are at target, and were when the metric was measured."""
        return self._measured.count(self._monitor, trainer, pl_module)

    @property
    def _monitor(self) -> str | None:
        monitor: str | None = getattr(self, "monitor", None)
        return monitor


class NothingAtTargetWarning(UserWarning):
    """A training has ended, and no epoch at target sparsity was chosen."""


def warn_nothing_at_target(
    what: str, last_validated: float | None, pl_module: pl.LightningModule, clause: str = ""
) -> None:
    """Say that a checkpoint has chosen nothing, with the sparsity at the end and the target.

    ``what`` begins the sentence, ``clause`` with its semicolon goes on in it; ``last_validated`` is
    the sparsity at the last validation, None = there was none.
    """
    counted = count_sparsity(pl_module)
    validated = "there was no validation"
    if last_validated is not None:
        validated = f"the last validation was at a sparsity of {last_validated:.4f}"
    rank_zero_warn(
        f"{what}: {validated}, the training ended at {counted.achieved:.4f}, and the target is "
        f"{counted.target:.4f}{clause}; allowed: a ramp that ends before the last validation, or, "
        "for a metric of training epochs, before the last of them; or a validation after the last "
        "step",
        category=NothingAtTargetWarning,
    )


class SavesAtTarget(_Callback):
    """Restores the score that Lightning saves alone, and warns when nothing was at target."""

    best_model_path: str
    save_top_k: int
    _measured: MetricsAtTarget

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.current_score = state_dict.get("current_score")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        is_to_save = self.save_top_k != 0 and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if not self.best_model_path and is_to_save and any(pruned_tensors(pl_module)):
            what = "TargetSparsityCheckpoint has chosen nothing"
            warn_nothing_at_target(what, self._measured.last_validated, pl_module)


class TargetSparsityCheckpoint(SavesAtTarget, TargetSparsityGate, pl.callbacks.ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, choosing only among epochs at target sparsity.

    During a ramp the early, dense epochs score best; what they score says nothing about the pruned
    model. Arguments are those of ``ModelCheckpoint``. A model without masks is always at target.

    A training in which no epoch was chosen ends with a
    ``NothingAtTargetWarning``, which says at what sparsity it ended and was last validated.
    """


class TargetSparsityEarlyStopping(TargetSparsityGate, pl.callbacks.EarlyStopping):
    """Lightning's ``EarlyStopping``, which cannot end a run before its ramp has ended.

    Its patience begins to count at target sparsity. Arguments are those of ``EarlyStopping``.
    """
