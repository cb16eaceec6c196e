"""Schedules of a user's own, with two parameters as in 0.4 of the API or with three as in 0.3."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule, SparsityScheduleBase
from coreai_opt.pruning.config.asking import asking_of
from coreai_opt.pruning.config.dense_reading import last_dense_reading
from coreai_opt.pruning.scheduling import groups
from tests.helpers.pruning import net, zeros


def line(step: int, target: float) -> float:
    return target * min(step, 4) / 4


class Two:
    def compute_sparsity(self, step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


class OtherNames:
    def compute_sparsity(self, step: int, target: float) -> float:
        return line(step, target)


class Swapped:
    def compute_sparsity(self, target_sparsity: float, step_count: int) -> float:
        return line(step_count, target_sparsity)


class Named:
    def compute_sparsity(self, *, step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


class PositionOnly:
    def compute_sparsity(self, step_count: int, target_sparsity: float, /) -> float:
        return line(step_count, target_sparsity)


class Further:
    """A third parameter that is something else keeps its default."""

    def compute_sparsity(self, step_count: int, target_sparsity: float, end: float = 4.0) -> float:
        assert end == 4.0
        return line(step_count, target_sparsity)


class FurtherNamed:
    def compute_sparsity(self, step_count: int, target_sparsity: float, *, end: int = 4) -> float:
        assert end == 4
        return line(step_count, target_sparsity)


class Static:
    @staticmethod
    def compute_sparsity(step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


class OfTheClass:
    @classmethod
    def compute_sparsity(cls, step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


class Callable:
    def __call__(self, step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


def wrapped(method: Any) -> Any:
    @functools.wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        return method(*arguments, **keywords)

    return call


class Decorated:
    @wrapped
    def compute_sparsity(self, step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


def with_end(step_count: int, target_sparsity: float, end: int) -> float:
    return target_sparsity * min(step_count, end) / end


class Registered(SparsityScheduleBase):
    def compute_sparsity(  # type: ignore[override]
        self, step_count: int, target_sparsity: float
    ) -> float:
        return line(step_count, target_sparsity)


WITHOUT: list[Any] = [
    Two(),
    OtherNames(),
    Swapped(),
    Named(),
    PositionOnly(),
    Further(),
    FurtherNamed(),
    Static(),
    OfTheClass(),
    Decorated(),
    SimpleNamespace(compute_sparsity=Callable()),
    SimpleNamespace(compute_sparsity=functools.partial(with_end, end=4)),
    SimpleNamespace(compute_sparsity=line),
    SimpleNamespace(
        compute_sparsity=lambda *, target_sparsity, **rest: line(
            rest["step_count"], target_sparsity
        )
    ),
    Registered(),
]


class Three:
    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        return grown(prev_sparsity, target_sparsity)


class ThreeNeeded:
    def compute_sparsity(self, step_count: int, target_sparsity: float, before: float) -> float:
        return grown(before, target_sparsity)


class ThreeNamed:
    def compute_sparsity(
        self, step_count: int, target_sparsity: float, *, prev_sparsity: float
    ) -> float:
        return grown(prev_sparsity, target_sparsity)


class ThreeOtherwiseNamed:
    def compute_sparsity(self, step: int, target: float, previous: float = 0.0) -> float:
        return grown(previous, target)


class ThreeNone:
    def compute_sparsity(self, step: int, target: float, kept: float | None = None) -> float:
        return grown(kept, target)


class ThreePositionOnly:
    def compute_sparsity(self, step: int, target: float, before: float, /) -> float:
        return grown(before, target)


class Rest:
    def compute_sparsity(self, *arguments: float) -> float:
        _, target, before = arguments
        return grown(before, target)


class RestAfterTwo:
    def compute_sparsity(self, step_count: int, target_sparsity: float, *rest: float) -> float:
        return grown(rest[0], target_sparsity)


class Keywords:
    def compute_sparsity(self, step_count: int, target_sparsity: float, **rest: float) -> float:
        return grown(rest["prev_sparsity"], target_sparsity)


class OnlyKeywords:
    def compute_sparsity(self, **given: float) -> float:
        return grown(given["prev_sparsity"], given["target_sparsity"])


class AddingUp(SparsityScheduleBase):
    def compute_sparsity(  # type: ignore[override]
        self, step_count: int, target_sparsity: float, prev_sparsity: float
    ) -> float:
        return grown(prev_sparsity, target_sparsity)


def grown(before: float | None, target: float) -> float:
    """A quarter of the target more than what is in force: it needs to be told that."""
    assert before is not None
    return min(before + target / 4, target)


WITH: list[Any] = [
    Three(),
    ThreeNeeded(),
    ThreeNamed(),
    ThreeOtherwiseNamed(),
    ThreeNone(),
    ThreePositionOnly(),
    Rest(),
    RestAfterTwo(),
    Keywords(),
    OnlyKeywords(),
    AddingUp(),
]


def name(schedule: Any) -> str:
    return type(schedule).__name__


def counts(schedule: Any, steps: int) -> list[int]:
    """The zeros of a layer of 63 weights after each step, with a target of 80 %."""
    pruner = MagnitudePruner(net(), MagnitudePrunerConfig.uniform(0.8, schedule))
    model = pruner.prepare()
    seen = [zeros(model)[0]]
    for _ in range(steps):
        pruner.step()
        seen.append(zeros(model)[0])
    return seen


@pytest.mark.parametrize("schedule", WITHOUT, ids=name)
def test_a_schedule_with_two_parameters_is_followed(schedule: Any) -> None:
    assert counts(schedule, 5) == [0, 12, 25, 37, 50, 50]


@pytest.mark.parametrize("schedule", WITH, ids=name)
def test_a_schedule_with_three_is_told_what_is_in_force(schedule: Any) -> None:
    assert counts(schedule, 4) == [12, 25, 37, 50, 50]


@pytest.mark.parametrize("schedule", [*WITHOUT, *WITH], ids=name)
def test_the_callbacks_ask_it_as_the_pruner_does(schedule: Any) -> None:
    assert last_dense_reading(schedule) == (0 if schedule in WITHOUT else -1)


def test_what_a_schedule_takes_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[Any] = []

    def looking(schedule: Any) -> Any:
        looked_up.append(schedule)
        return asking_of(schedule)

    monkeypatch.setattr(groups, "asking_of", looking)
    schedule = Two()
    assert counts(schedule, 5)[-1] == 50
    assert looked_up == [schedule]


def test_it_is_asked_once_at_each_step() -> None:
    class Counting(Two):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def compute_sparsity(self, step_count: int, target_sparsity: float) -> float:
            self.steps.append(step_count)
            return super().compute_sparsity(step_count, target_sparsity)

    schedule = Counting()
    counts(schedule, 4)
    assert schedule.steps == [0, 1, 2, 3, 4]


class Nothing:
    def compute_sparsity(self) -> float:
        return 0.5


class One:
    def compute_sparsity(self, step_count: int) -> float:
        return 0.5


class Four:
    def compute_sparsity(self, step_count: int, target: float, prev: float, more: int) -> float:
        return 0.5


@pytest.mark.parametrize("schedule", [Nothing(), One(), Four()], ids=name)
def test_one_that_takes_something_else_is_refused_where_it_is_attached(schedule: Any) -> None:
    with pytest.raises(ValueError, match=r"compute_sparsity\(.*cannot be asked; allowed: "):
        MagnitudePrunerConfig.uniform(0.8, schedule)


def test_the_curve_of_a_class_with_two_parameters_is_known() -> None:
    assert [Registered().sparsity_at(step, 0.8) for step in (0, 1, 4, 9)] == [0, 0.2, 0.8, 0.8]


def test_the_curve_of_a_class_that_adds_up_is_that_of_its_steps() -> None:
    assert [round(AddingUp().sparsity_at(step, 0.8), 9) for step in range(4)] == [
        0.2,
        0.4,
        0.6,
        0.8,
    ]


def test_ours_keep_their_signature_and_their_error() -> None:
    ramp = PolynomialDecaySchedule(total_iters=10, power=3, update_frequency=3)
    assert ramp.compute_sparsity(7, 0.5, 0.4) == ramp.compute_sparsity(7, 0.5, prev_sparsity=0.4)
    with pytest.raises(ValueError, match="prev_sparsity"):
        ramp.compute_sparsity(7, 0.5)
    assert ramp.sparsity_at(7, 0.5) == ramp.compute_sparsity(6, 0.5)


def test_the_pruner_needs_no_previous_sparsity_from_anybody() -> None:
    ramp = PolynomialDecaySchedule(total_iters=10, power=1, update_frequency=3)
    assert counts(ramp, 10) == [0, 0, 0, 16, 16, 16, 33, 33, 33, 50, 50]
