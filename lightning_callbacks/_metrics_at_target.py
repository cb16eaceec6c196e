"""Metrics at target: those that were measured while the masks were at their target sparsity."""

from typing import Any

from torch import Tensor

from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks._lightning.root import pl

STATE = ("epoch", "last_epoch", "validation", "last_validated")


def at_target_sparsity(model: pl.LightningModule) -> bool:
    """Return whether every mask of the model is at its target; a model without masks is."""
    return all(tensor.at_target for tensor in pruned_tensors(model))


def asked_zeros(model: pl.LightningModule) -> int:
    """Return how many elements the masks of the model prune at their target; 0 without masks."""
    return sum(tensor.asked for tensor in pruned_tensors(model))


class MetricsAtTarget:
    """Says whether the last metrics of a trainer were measured at target sparsity.

    A validation metric counts when the masks were at target as the validation ran, which may have
    been an epoch ago. Any other is taken for a mean over the last training epoch that has ended,
    and the masks have to have been at target since that one began; until an epoch has ended, since
    the first one began. What the trainer does not measure, as the number of the step, is of now,
    and so is a metric of a single step (``train/loss_step``).

    It is told of epochs and validations; in which order callbacks are told is of no matter.

    Attributes:
        last_validated: the sparsity in [0, 1] that the schedules asked for at the last validation;
            None = there was none.
    """

    def __init__(self) -> None:
        self.epoch = False  # whether the masks were at target when it began
        self.last_epoch: bool | None = None  # the same of the one before; None = none has ended
        self.validation = False
        self.last_validated: float | None = None
        self._of_validation: set[str] = set()
        self._before: dict[str, Tensor] | None = None  # what was there, while a validation runs

    def epoch_starts(self, model: pl.LightningModule) -> None:
        self.epoch = at_target_sparsity(model)

    def epoch_ends(self) -> None:
        self.last_epoch = self.epoch

    def validation_starts(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self._before = dict(trainer.callback_metrics)
        self.validation = at_target_sparsity(model)
        if not trainer.sanity_checking:
            self.last_validated = _scheduled(model)

    def validation_ends(self, trainer: pl.Trainer) -> None:
        self._look(trainer)
        self._before = None

    def count(self, monitor: str | None, trainer: pl.Trainer, model: pl.LightningModule) -> bool:
        """Return whether the masks are at target, and were when the trainer measured a metric.

        No metric is whatever is saved without one. Without masks everything counts.
        """
        if not at_target_sparsity(model):
            return False
        if monitor is None or not any(pruned_tensors(model)):
            return True
        self._look(trainer)
        # Lightning's name for what a single step has logged beside a mean over the epoch.
        if monitor not in trainer.callback_metrics or monitor.endswith("_step"):
            return True
        if monitor in self._of_validation:
            return self.validation
        return self.epoch if self.last_epoch is None else self.last_epoch

    def state_dict(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in STATE}
        return state | {"of_validation": sorted(self._of_validation)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE:
            setattr(self, name, state.get(name, getattr(self, name)))
        self._of_validation = set(state.get("of_validation", ()))

    def _look(self, trainer: pl.Trainer) -> None:
        """Collect the metrics of a validation that has ended."""
        if self._before is None:
            return
        # One that was logged is a new tensor; one that was not is the old one.
        for name, value in trainer.callback_metrics.items():
            if value is not self._before.get(name):
                self._of_validation.add(name)


def _scheduled(model: pl.LightningModule) -> float:
    """Return what the schedules ask for now, weighted by elements; nothing is counted."""
    impls = [tensor.impl for tensor in pruned_tensors(model)]
    elements = sum(impl.mask.numel() for impl in impls)
    return sum(impl.sparsity * impl.mask.numel() for impl in impls) / max(elements, 1)
