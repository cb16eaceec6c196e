"""End of a dense warm-up: the step boundary before a Trainer's first mask."""

from typing import Any

from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.runs.values import RunValues
from coreai_opt.warmup.run import WarmupNotPossibleError
from lightning_callbacks._resume.dataloader_state import repeats_exactly


class WarmupEnded(Exception):
    """The warm-up is complete, and its checkpoint is written."""


class EndOfWarmup:
    """Says when a Trainer's warm-up is over; asked at each step boundary.

    Args:
        values: of the run.
        end: the last reading of the schedule's clock without a mask.
    """

    def __init__(self, values: RunValues, end: int) -> None:
        self._values, self._end, self._trainer = values, end, None

    def __deepcopy__(self, memo: dict[int, Any]) -> "EndOfWarmup":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_values": None, "_trainer": None}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._trainer = trainer

    def error(self) -> BaseException | None:
        """Return what ends the training now, None while the warm-up lasts."""
        trainer: Any = self._trainer
        if trainer is None:
            return None
        found = [one for one in trainer.callbacks if type(one).__name__ == "ScheduledPruning"]
        if not found or found[0].clock < self._end:
            return None
        if any(one.impl.sparsity > 0 for one in pruned_tensors(trainer.lightning_module)):
            return WarmupNotPossibleError("the schedule's clock leaps over the end of the warm-up")
        if not repeats_exactly(trainer):
            return WarmupNotPossibleError("the data loader has workers and keeps no state")
        self._values.has_ended_warmup = True
        return WarmupEnded()
