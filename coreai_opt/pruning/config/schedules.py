"""When: sparsity as a function of the step count."""

from abc import abstractmethod
from math import ceil
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from coreai_opt.pruning._registry import Registry

__all__ = [
    "ConstantSparsitySchedule",
    "PolynomialDecaySchedule",
    "SparsitySchedule",
    "SparsityScheduleBase",
]

Step = Annotated[int, Field(ge=0)]
Sparsity = Annotated[float, Field(ge=0.0, le=1.0)]


class SparsitySchedule(Protocol):
    """What the pruner asks of a schedule: any object with this method will do."""

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float: ...


class SparsityScheduleBase(BaseModel, Registry):
    """Base of all schedules: frozen, hashable, equal when type and fields are equal.

    A schedule of your own is a subclass with the fields it needs and a ``compute_sparsity``;
    ``@SparsityScheduleBase.register("key")`` makes it known by name.

    Example:
        >>> from coreai_opt.pruning.config import SparsityScheduleBase
        >>> SparsityScheduleBase.maybe_build_from_dict({"type": "constant", "begin_step": 3})
        ConstantSparsitySchedule(begin_step=3)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @abstractmethod
    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        """Return the sparsity that is due after ``step_count`` steps.

        Args:
            step_count: steps finished, 0 before the first one.
            target_sparsity: the sparsity to arrive at, in [0, 1].
            prev_sparsity: the sparsity in force, which a schedule keeps between its updates.

        Returns:
            A sparsity in [0, 1].

        Raises:
            ValueError: ``target_sparsity`` is outside [0, 1], or ``prev_sparsity`` is needed and
                was not given.
        """

    def last_update(self, step_count: int) -> int:
        """Return the last step at or before ``step_count`` whose value needs no ``prev_sparsity``.

        A schedule that keeps its value between updates overrides this.
        """
        return step_count

    def sparsity_at(self, step_count: int, target_sparsity: float) -> float:
        """Return the same curve without ``prev_sparsity``, for previews, plots and resuming.

        The step is rounded down to the last update.
        """
        return self.compute_sparsity(self.last_update(step_count), target_sparsity)

    @property
    def end_step(self) -> int | None:
        """The first step from which the target is in force for good; None when unknown."""
        return None


@SparsityScheduleBase.register("constant")
class ConstantSparsitySchedule(SparsityScheduleBase):
    """All at once: 0 before ``begin_step``, the target at and after it.

    Args:
        begin_step: the step at which the target comes into force, >= 0.

    Example:
        >>> schedule = ConstantSparsitySchedule(begin_step=10)
        >>> [schedule.compute_sparsity(step, 0.5) for step in (9, 10, 11)]
        [0.0, 0.5, 0.5]
    """

    begin_step: Step = Field(0, description="step of the only update, >= 0")

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        _check_target(target_sparsity)
        return target_sparsity if step_count >= self.begin_step else 0.0

    @property
    def end_step(self) -> int:
        return self.begin_step


@SparsityScheduleBase.register("polynomial_decay")
class PolynomialDecaySchedule(SparsityScheduleBase):
    r"""A ramp from ``initial_sparsity`` to the target along a polynomial.

    With ``offset = step - begin_step``, ``i = offset // update_frequency`` the index of the update,
    ``n = ceil(total_iters / update_frequency)`` their number and ``t = i / max(n - 1, 1)``:

        sparsity = target + (initial_sparsity - target) * (1 - t) ** power

    so that the target is reached at the LAST update inside the window. Before the window the value
    is ``initial_sparsity``, from ``begin_step + total_iters`` on it is the target. Between two
    updates the sparsity in force is kept.

    Source of the curve: Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878, eq. 1.

    Args:
        total_iters: length of the ramp in steps, >= 1.
        begin_step: first step of the ramp, >= 0.
        power: exponent, > 0; 1 is a straight line, larger prunes earlier.
        initial_sparsity: sparsity at and before ``begin_step``, in [0, 1].
        update_frequency: steps between two updates, >= 1.

    Example:
        >>> ramp = PolynomialDecaySchedule(total_iters=10, begin_step=100, power=1)
        >>> [round(ramp.compute_sparsity(step, 0.9), 2) for step in (99, 100, 101, 109, 110)]
        [0.0, 0.0, 0.1, 0.9, 0.9]
    """

    total_iters: int = Field(gt=0, description="length of the ramp in steps, >= 1")
    begin_step: Step = Field(0, description="first step of the ramp, >= 0")
    power: float = Field(3.0, gt=0, description="exponent of the ramp, > 0")
    initial_sparsity: Sparsity = Field(0.0, description="sparsity before the ramp, 0 to 1")
    update_frequency: int = Field(1, ge=1, description="steps between two updates, >= 1")

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        _check_target(target_sparsity)
        if step_count < self.begin_step:
            return self.initial_sparsity
        if step_count >= self.end_step:
            return target_sparsity
        if step_count != self.last_update(step_count):
            return self._kept(step_count, prev_sparsity)
        return self._at_update(
            (step_count - self.begin_step) // self.update_frequency, target_sparsity
        )

    def last_update(self, step_count: int) -> int:
        if step_count < self.begin_step or step_count >= self.end_step:
            return step_count
        return step_count - (step_count - self.begin_step) % self.update_frequency

    @property
    def end_step(self) -> int:
        return self.begin_step + self.total_iters

    def _at_update(self, index: int, target: float) -> float:
        if index == 0:  # the formula's rounding may fall short of it
            return self.initial_sparsity
        last_index = max(ceil(self.total_iters / self.update_frequency) - 1, 1)
        t = index / last_index
        left: float = (1 - t) ** self.power
        return target + (self.initial_sparsity - target) * left

    def _kept(self, step_count: int, prev_sparsity: float | None) -> float:
        if prev_sparsity is None:
            raise ValueError(
                f"step {step_count} lies between two updates (begin_step={self.begin_step}, "
                f"update_frequency={self.update_frequency}): give prev_sparsity or use sparsity_at"
            )
        return prev_sparsity


def _check_target(target_sparsity: float) -> None:
    if not 0.0 <= target_sparsity <= 1.0:
        raise ValueError(f"target_sparsity is {target_sparsity}; allowed: 0 to 1")
