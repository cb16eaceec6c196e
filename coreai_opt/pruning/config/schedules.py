"""Sparsity schedules: sparsity as a function of the step count."""

from abc import abstractmethod
from bisect import bisect_right
from itertools import pairwise
from math import ceil, cos, exp, expm1, pi
from typing import Annotated, Any, Protocol

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from coreai_opt.pruning._registry import Registry
from coreai_opt.pruning.config.asking import Asking, asking_of

Step = Annotated[int, Field(ge=0)]
Sparsity = Annotated[float, Field(ge=0.0, le=1.0)]


class SparsitySchedule(Protocol):
    """What the pruner asks of a schedule: any object with this method will do.

    The third parameter may be missing: what is taken is looked up once, when the schedule is
    attached.
    """

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float: ...


class SparsityScheduleBase(BaseModel, Registry):
    """Base of all schedules: frozen, hashable, equal when type and fields are equal.

    A schedule of your own is a subclass with the fields it needs and a ``compute_sparsity``, which
    may leave out ``prev_sparsity``; ``@SparsityScheduleBase.register("key")`` makes it known by
    name.

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

        The step is rounded down to the last update. A schedule that cannot be asked without
        ``prev_sparsity`` is asked for every step from 0 on.
        """
        return _asking(self).ask_alone(self, self.last_update(step_count), target_sparsity)

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


class _Ramp(SparsityScheduleBase):
    """A curve over a window of steps: when it is updated; a subclass says how much is left."""

    total_iters: int = Field(gt=0, description="length of the ramp in steps, >= 1")
    begin_step: Step = Field(0, description="first step of the ramp, >= 0")
    initial_sparsity: Sparsity = Field(0.0, description="sparsity before the ramp, 0 to 1")
    update_frequency: int = Field(1, ge=1, description="steps between two updates, >= 1")

    @abstractmethod
    def _share_left(self, t: float) -> float:
        """Return the share of the way to the target that is still ahead, for 0 < t < 1."""

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
        last_index = ceil(self.total_iters / self.update_frequency) - 1
        if index == last_index:
            return target
        left = self._share_left(index / last_index)
        value = target + (self.initial_sparsity - target) * left
        low, high = sorted((self.initial_sparsity, target))
        return min(max(value, low), high)  # rounding may also leave the way by the last bit

    def _kept(self, step_count: int, prev_sparsity: float | None) -> float:
        if prev_sparsity is None:
            raise ValueError(
                f"step {step_count} lies between two updates (begin_step={self.begin_step}, "
                f"update_frequency={self.update_frequency}): give prev_sparsity or use sparsity_at"
            )
        return prev_sparsity


@SparsityScheduleBase.register("polynomial_decay")
class PolynomialDecaySchedule(_Ramp):
    r"""A ramp from ``initial_sparsity`` to the target along a polynomial.

    With ``offset = step - begin_step``, ``i = offset // update_frequency`` the index of the update,
    ``n = ceil(total_iters / update_frequency)`` their number and ``t = i / max(n - 1, 1)``:

        sparsity = target + (initial_sparsity - target) * (1 - t) ** power

    so that the target is reached at the LAST update inside the window. Before the window the value
    is ``initial_sparsity``, from ``begin_step + total_iters`` on it is the target. Between two
    updates the sparsity in force is kept.

    A larger power prunes EARLIER: after a third of a ramp from 0, power 1 is at a third of the
    target and power 3 at 70 %. The reference documents the same formula, and says of ``power`` that
    higher values keep the sparsity low for longer, which is the opposite. Here the formula holds.

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
        >>> cubic = PolynomialDecaySchedule(total_iters=10, power=3)
        >>> [round(cubic.compute_sparsity(step, 0.9), 3) for step in (0, 3, 6, 9)]
        [0.0, 0.633, 0.867, 0.9]
    """

    power: float = Field(3.0, gt=0, description="exponent of the ramp, > 0")

    def _share_left(self, t: float) -> float:
        left: float = (1 - t) ** self.power
        return left


@SparsityScheduleBase.register("cosine")
class CosineSparsitySchedule(_Ramp):
    r"""A ramp from ``initial_sparsity`` to the target along half a cosine: slow, fast, slow.

    The window and its updates are those of ``PolynomialDecaySchedule``; with its ``t``, 0 at the
    first update and 1 at the last:

        sparsity = target + (initial_sparsity - target) * (1 + cos(pi * t)) / 2

    Source of the curve: cosine annealing, Loshchilov and Hutter 2017, "SGDR", arXiv:1608.03983,
    eq. 5, where it is one of learning rates.

    Args:
        total_iters: length of the ramp in steps, >= 1.
        begin_step: first step of the ramp, >= 0.
        initial_sparsity: sparsity at and before ``begin_step``, in [0, 1].
        update_frequency: steps between two updates, >= 1.

    Example:
        >>> ramp = CosineSparsitySchedule(total_iters=5, begin_step=100)
        >>> [round(ramp.compute_sparsity(step, 0.8), 3) for step in (99, 100, 101, 102)]
        [0.0, 0.0, 0.117, 0.4]
        >>> [round(ramp.compute_sparsity(step, 0.8), 3) for step in (103, 104, 105)]
        [0.683, 0.8, 0.8]
    """

    def _share_left(self, t: float) -> float:
        return (1 + cos(pi * t)) / 2


@SparsityScheduleBase.register("exponential")
class ExponentialSparsitySchedule(_Ramp):
    r"""A ramp from ``initial_sparsity`` to the target: fast at first, slower and slower.

    The window and its updates are those of ``PolynomialDecaySchedule``; with its ``t``, 0 at the
    first update and 1 at the last:

        left = (exp(-rate * t) - exp(-rate)) / (1 - exp(-rate))
        sparsity = target + (initial_sparsity - target) * left

    Without the normalisation, which makes it end at the target, ``left`` is ``exp(-rate * t)``:
    the density of iterative pruning, which takes a fixed share of what is left in each round.

    Source of the rounds: Frankle and Carbin 2019, "The Lottery Ticket Hypothesis",
    arXiv:1803.03635.

    Args:
        total_iters: length of the ramp in steps, >= 1.
        begin_step: first step of the ramp, >= 0.
        rate: exponent of the decay over the whole ramp, > 0 and finite; near 0 the ramp is a
            straight line, the larger the more is pruned at its begin.
        initial_sparsity: sparsity at and before ``begin_step``, in [0, 1].
        update_frequency: steps between two updates, >= 1.

    Example:
        >>> ramp = ExponentialSparsitySchedule(total_iters=5, begin_step=100)
        >>> [round(ramp.compute_sparsity(step, 0.8), 3) for step in (99, 100, 101, 102)]
        [0.0, 0.0, 0.575, 0.739]
        >>> [round(ramp.compute_sparsity(step, 0.8), 3) for step in (103, 104, 105)]
        [0.786, 0.8, 0.8]
    """

    rate: float = Field(5.0, gt=0, description="exponent of the decay over the ramp, > 0")

    def _share_left(self, t: float) -> float:
        # The formula of the docstring with exp(-rate * t) taken out: no difference of two numbers
        # that are nearly equal, and no exponent above 0.
        return exp(-self.rate * t) * expm1(-self.rate * (1 - t)) / expm1(-self.rate)


@SparsityScheduleBase.register("multistep")
class MultiStepSparsitySchedule(SparsityScheduleBase):
    """In rounds: at each milestone the sparsity jumps to a share of the target.

    The sparsity is ``target * level``, with the level of the last milestone at or before the step,
    and 0 before the first milestone. Levels are shares and not sparsities, because each tensor may
    have a target of its own.

    Source of pruning in rounds: Han et al. 2015, "Learning both Weights and Connections for
    Efficient Neural Networks", arXiv:1506.02626.

    Args:
        milestones: steps from which the levels hold, at least one, each >= 0, strictly increasing.
        levels: shares of the target, one for each milestone, each in [0, 1], not decreasing; the
            last is 1.

    Raises:
        ValueError: an empty, unordered or unequally long list, or a value outside its range.

    Example:
        >>> rounds = MultiStepSparsitySchedule(milestones=(10, 20), levels=(0.5, 1.0))
        >>> [rounds.compute_sparsity(step, 0.8) for step in (9, 10, 19, 20)]
        [0.0, 0.4, 0.4, 0.8]
    """

    milestones: tuple[Step, ...] = Field(
        min_length=1,
        description="list of the steps from which the levels hold, >= 0, strictly increasing",
    )
    levels: tuple[Sparsity, ...] = Field(
        description="list of shares of the target, one a milestone, 0 to 1, not decreasing, last 1"
    )

    @field_validator("milestones")
    @classmethod
    def _increase(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for before, after in pairwise(value):
            if after <= before:
                raise ValueError(
                    f"{list(value)} is not strictly increasing: {after} follows {before}"
                )
        return value

    @field_validator("levels")
    @classmethod
    def _rise_to_one(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        milestones = info.data.get("milestones")  # not there when they are bad themselves
        if milestones is not None and len(value) != len(milestones):
            raise ValueError(
                f"{list(value)} should have as many values as there are milestones, "
                f"{len(milestones)} and not {len(value)}"
            )
        for before, after in pairwise(value):
            if after < before:
                raise ValueError(f"{list(value)} decreases: {after} follows {before}")
        if value and value[-1] != 1:
            raise ValueError(f"{list(value)} ends at {value[-1]} and not at 1, the whole target")
        return value

    @field_serializer("milestones", "levels")
    def _as_list(self, value: tuple[Any, ...]) -> list[Any]:
        return list(value)  # JSON and YAML have no tuples

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        _check_target(target_sparsity)
        reached = bisect_right(self.milestones, step_count)
        return target_sparsity * self.levels[reached - 1] if reached else 0.0

    @property
    def end_step(self) -> int:
        return self.milestones[self.levels.index(1.0)]


def _check_target(target_sparsity: float) -> None:
    if not 0.0 <= target_sparsity <= 1.0:
        raise ValueError(f"target_sparsity is {target_sparsity}; allowed: 0 to 1")


_ASKING: dict[type, Asking] = {}  # a preview asks one schedule for thousands of steps


def _asking(schedule: SparsityScheduleBase) -> Asking:
    kind = type(schedule)
    if kind not in _ASKING:
        _ASKING[kind] = asking_of(schedule)
    return _ASKING[kind]
