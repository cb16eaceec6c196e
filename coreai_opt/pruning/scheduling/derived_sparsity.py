"""Derived sparsity: what a schedule asks for at a step, where a state dict has the step alone."""

from dataclasses import dataclass, field
from typing import Any, Self

from coreai_opt.pruning.config.asking import Asking
from coreai_opt.pruning.config.pruner import Allocation
from coreai_opt.pruning.config.schedules import SparsitySchedule, SparsityScheduleBase
from coreai_opt.pruning.scheduling.allocation import allocate


@dataclass(frozen=True)
class DerivedSparsity:
    """The sparsity of several tensors under one schedule at any step, without what came before.

    ``target_sparsity`` is that of all tensors together; no schedule = all at once.
    """

    schedule: SparsitySchedule | None
    asking: Asking
    target_sparsity: float
    allocation: Allocation
    shapes: tuple[tuple[int, ...], ...]
    _last: dict[int, float] = field(default_factory=dict, compare=False, repr=False)

    def scheduled(self, step_count: int) -> float:
        """Return the sparsity of all tensors together after some steps, in [0, 1].

        A schedule of a user's own that is told the sparsity in force is asked for every step from 0
        on.
        """
        if self.schedule is None:
            return self.target_sparsity
        if step_count not in self._last:  # each tensor asks for the same step
            self._last.clear()
            self._last[step_count] = self._asked(self.schedule, step_count)
        return self._last[step_count]

    def _asked(self, schedule: Any, step_count: int) -> float:
        is_ours = type(schedule).__module__ == SparsityScheduleBase.__module__
        if is_ours and isinstance(schedule, SparsityScheduleBase):
            return schedule.sparsity_at(step_count, self.target_sparsity)
        if not self.asking.takes_previous:
            return self.asking.ask_alone(schedule, step_count, self.target_sparsity)
        return self.asking.ask_along(schedule, step_count, self.target_sparsity)

    def share(self, place: int, step_count: int) -> float:
        """Return the sparsity of the tensor at a place among the shapes, in [0, 1]."""
        return allocate(self.allocation, self.shapes, self.scheduled(step_count))[place]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A copy of a model asks the same schedule, which may hold what cannot be copied.
        return self
