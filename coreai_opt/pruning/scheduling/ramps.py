"""Ramp checks: can a ramp end inside a training, and how far did it come?"""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.in_place.pruner import InPlacePruner, MasksFrom
from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors

Interval = Literal["step", "epoch", "percent"]

UNITS = {"step": "steps", "epoch": "epochs", "percent": "percent"}

# By a field that a schedule has: what its end is, in the user's words.
ENDS = {
    "total_iters": "begin_step + total_iters",
    "milestones": "last milestone",
    "begin_step": "begin_step",
}


def check_choices(interval: str, masks_from: str) -> None:
    """Refuse an unknown ``interval`` or ``masks_from``."""
    for name, value, known in (
        ("interval", interval, get_args(Interval)),
        ("masks_from", masks_from, get_args(MasksFrom)),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; allowed: {', '.join(known)}")


class RampTooLongError(PruningError):
    """The ramp cannot end inside the training."""

    def __init__(
        self, end: int, total: int, interval: Interval, what: str = "begin_step + total_iters"
    ) -> None:
        self.end, self.total, self.interval = end, total, interval
        unit = UNITS[interval]
        super().__init__(
            f"the ramp cannot end inside the training: it ends after {end} {unit} "
            f"({what}), and the training has {total}; "
            f"allowed: {what} <= {total}, or a longer training"
        )


def ends_of(schedules: Iterable[SparsitySchedule]) -> Iterator[tuple[int, str]]:
    """Yield where schedules end and what that is in the user's words, of those that have an end."""
    for schedule in schedules:
        end = getattr(schedule, "end_step", None)
        if end is not None:
            yield (
                end,
                next((what for name, what in ENDS.items() if hasattr(schedule, name)), "end_step"),
            )


def end_of_ramps(schedules: Iterable[SparsitySchedule]) -> int | None:
    """Return the last reading of the clock at which a mask is still to change; None = not known."""
    return max((end for end, _ in ends_of(schedules)), default=None)


def shortfalls(
    pruner: InPlacePruner, schedules: Iterable[SparsitySchedule], interval: Interval
) -> list[str]:
    """Return what a training that has ended falls short of, a sentence each; none = nothing.

    They say which weights the model has lost, and how far a ramp came that has not ended.
    """
    found = []
    there = {tensor.name for tensor in pruned_tensors(pruner.model)}
    if lost := [name for name in pruner.names if name not in there]:
        found.append(
            f"{len(lost)} pruned weights are no longer in the module (the first is {lost[0]!r}): "
            "a layer was put in the place of another in mid-training, and is dense"
        )
    if not pruner.at_target():
        report = count_sparsity(pruner.model)
        end = end_of_ramps(schedules)
        ends = "" if end is None else f", which ends at {end}"
        found.append(
            f"the training ended at {interval} {pruner.step_count} of the schedule{ends}, below "
            f"the target sparsity: {report.achieved:.4f} of {report.target:.4f}"
        )
    return found
