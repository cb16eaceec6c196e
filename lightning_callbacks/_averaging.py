"""Masked averages: averaged weights of other callbacks are 0 where the model is pruned."""

import math
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from coreai_opt.pruning import InPlacePruner
from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning.roots import callbacks_of
from lightning_callbacks._lightning_internals import epoch_average

AVERAGING = ("StochasticWeightAveraging", "WeightAveraging")


class MaskedAverages:
    """The averages that callbacks keep of one pruned module.

    The weights of the module are 0 where they are pruned, and so is an average of them that was 0
    there when the mask changed. It is masked then, whether its callback takes in the weights of the
    same batch before or after that.
    """

    def __init__(self) -> None:
        self._known: dict[int, nn.Module] = {}
        self._update = -1

    def mask(self, trainer: pl.Trainer, pruner: InPlacePruner) -> None:
        """Mask the averages by the masks of now, if those have changed, or the average is new."""
        has_changed = self._update != pruner.update_count
        for callback in callbacks_of(trainer, *AVERAGING):
            average = epoch_average(callback)
            # A subclass may make its average late, or make another.
            if average is not None and (
                has_changed or self._known.get(id(callback)) is not average
            ):
                self._known[id(callback)] = average
                pruner.mask_copy(average.module if isinstance(average, AveragedModel) else average)
        self._update = pruner.update_count

    def release(self) -> None:
        """Let go of all averages."""
        self._known.clear()
        self._update = -1


def evaluate_the_average(checkpoint: dict[str, Any]) -> None:
    """Make a loaded checkpoint give its average to whatever evaluates it, as it does to others.

    In the process of the training ``WeightAveraging`` would put the weights of the last step in its
    place: right for going on, but a test would measure a model that was never validated.
    """
    if "current_model_state" in checkpoint:
        checkpoint["current_model_state"] = checkpoint["state_dict"]


def planned_epochs(trainer: pl.Trainer) -> float:
    """Return the epochs that the module is trained for; infinite = no limit.

    An epoch that ``StochasticWeightAveraging`` appends to measure statistics for batch
    normalization is none of them. (It does make one step, with the last batch and old gradients:
    Lightning skips the backward pass and means to skip the step.)
    """
    limits = [math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)]
    for callback in callbacks_of(trainer, "StochasticWeightAveraging"):
        # Without a value before the fit begins, when there is no such epoch either.
        limits.append(getattr(callback, "swa_end", math.inf) + 1)
    return min(limits)
