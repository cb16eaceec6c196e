"""Lightning's checkpoint and early stopping, blind to epochs before the target sparsity."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from coreai_opt.pruning.stats import count_sparsity
from coreai_opt.pruning.targets import pruned_tensors
from lightning_callbacks._lightning import pl, rank_zero_warn
from lightning_callbacks._roots import require_one_root

__all__ = [
    "NothingAtTargetWarning",
    "SavesAtTarget",
    "TargetSparsityCheckpoint",
    "TargetSparsityEarlyStopping",
    "TargetSparsityGate",
    "at_target_sparsity",
]

# What the gate remembers of epochs and validations before.
GATE = (
    "_epoch_at_target",
    "_last_epoch_at_target",
    "_validated_at_target",
    "_monitors_validation",
    "_last_validated",
)


def at_target_sparsity(model: pl.LightningModule) -> bool:
    """Return whether every mask of the model is at its target; a model without masks is."""
    return all(tensor.at_target for tensor in pruned_tensors(model))


def _scheduled(model: pl.LightningModule) -> float:
    """Return what the schedules ask for now, weighted by elements; nothing is counted."""
    impls = [tensor.impl for tensor in pruned_tensors(model)]
    elements = sum(impl.mask.numel() for impl in impls)
    return sum(impl.sparsity * impl.mask.numel() for impl in impls) / max(elements, 1)


# In front of the classes of either root.
if TYPE_CHECKING:
    _Callback = pl.Callback
else:
    _Callback = object


class TargetSparsityGate(_Callback):
    """Lets a metric through to the class behind it only when it was measured at target sparsity.

    A validation metric counts when the masks were at target as the validation ran, which may have
    been an epoch ago. Any other is taken for a mean over the last training epoch that has ended,
    and the masks have to have been at target since that one began.
    """

    _epoch_at_target = False
    _last_epoch_at_target = False
    _validated_at_target = False
    _monitors_validation = False
    _last_validated: float | None = None  # the sparsity that the schedules asked for then
    _before_validation: Tensor | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_one_root(self, trainer)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_at_target = at_target_sparsity(pl_module)
        super().on_train_epoch_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if self._counts(pl_module):
            super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before_validation = self._current(trainer)
        super().on_validation_start(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated_at_target = at_target_sparsity(pl_module)
        if not trainer.sanity_checking:
            self._last_validated = _scheduled(pl_module)
        # A validation that logs the metric makes a new tensor; one that does not leaves the old.
        if self._current(trainer) is not self._before_validation:
            self._monitors_validation = True
        if self._counts(pl_module):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_epoch_at_target = self._epoch_at_target
        if self._counts(pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if at_target_sparsity(pl_module):
            super().on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"gate": {name: getattr(self, name) for name in GATE}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        for name, value in state.pop("gate", {}).items():
            setattr(self, name, value)
        super().load_state_dict(state)

    def _counts(self, pl_module: pl.LightningModule) -> bool:
        """Whether the masks are at target, and were when the metric was measured."""
        if not at_target_sparsity(pl_module):
            return False
        if self._monitor is None or not any(pruned_tensors(pl_module)):
            return True
        if self._monitors_validation:
            return self._validated_at_target
        return self._last_epoch_at_target

    def _current(self, trainer: pl.Trainer) -> Tensor | None:
        return None if self._monitor is None else trainer.callback_metrics.get(self._monitor)

    @property
    def _monitor(self) -> str | None:
        monitor: str | None = getattr(self, "monitor", None)
        return monitor


class NothingAtTargetWarning(UserWarning):
    """A training has ended, and no epoch at target sparsity was chosen."""


class SavesAtTarget(_Callback):
    """Restores the score that Lightning saves alone, and warns when nothing was at target."""

    best_model_path: str
    save_top_k: int
    _last_validated: float | None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.current_score = state_dict.get("current_score")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        is_to_save = self.save_top_k != 0 and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if self.best_model_path or not is_to_save or not any(pruned_tensors(pl_module)):
            return
        counted, last = count_sparsity(pl_module), self._last_validated
        validated = "there was no validation"
        if last is not None:
            validated = f"the last validation was at a sparsity of {last:.4f}"
        rank_zero_warn(
            f"TargetSparsityCheckpoint has chosen nothing: {validated}, the training ended at "
            f"{counted.achieved:.4f}, and the target is {counted.target:.4f}; allowed: a ramp that "
            "ends before the last validation, or a validation after the last step",
            category=NothingAtTargetWarning,
        )


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
