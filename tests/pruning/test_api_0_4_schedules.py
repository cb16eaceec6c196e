"""Schedules of a user's own, with two parameters as in 0.4 of the API or with three as in 0.3."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule, SparsityScheduleBase
from coreai_opt.pruning.config.dense_reading import last_dense_reading
from tests.helpers.pruning import net, zeros


def line(step: int, target: float) -> float:
    return target * min(step, 4) / 4


def own(function: Any) -> Any:
    """Return an object whose method is a function."""
    return type("Own", (), {"compute_sparsity": function})()


def wrapped(method: Any) -> Any:
    @functools.wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        return method(*arguments, **keywords)

    return call


class Two:
    def compute_sparsity(self, step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


class Callable:
    def __call__(self, step_count: int, target_sparsity: float) -> float:
        return line(step_count, target_sparsity)


def with_end(step_count: int, target_sparsity: float, end: int) -> float:
    return target_sparsity * min(step_count, end) / end


def named(self: Any, *, step_count: int, target_sparsity: float) -> float:
    return line(step_count, target_sparsity)


def position_only(self: Any, step_count: int, target_sparsity: float, /) -> float:
    return line(step_count, target_sparsity)


class Registered(SparsityScheduleBase):
    def compute_sparsity(  # type: ignore[override]
        self, step_count: int, target_sparsity: float
    ) -> float:
        return line(step_count, target_sparsity)


# A third parameter that is something else keeps its default.
WITHOUT: dict[str, Any] = {
    "two": Two(),
    "other names": own(lambda self, step, target: line(step, target)),
    "swapped": own(lambda self, target_sparsity, step_count: line(step_count, target_sparsity)),
    "named": own(named),
    "by position": own(position_only),
    "further": own(
        lambda self, step_count, target_sparsity, end=4: with_end(step_count, target_sparsity, end)
    ),
    "further, named": own(
        lambda self, step_count, target_sparsity, *, end=4: with_end(
            step_count, target_sparsity, end
        )
    ),
    "static": own(staticmethod(line)),
    "of the class": own(classmethod(lambda cls, step, target: line(step, target))),
    "decorated": own(wrapped(Two.compute_sparsity)),
    "callable": SimpleNamespace(compute_sparsity=Callable()),
    "partial": SimpleNamespace(compute_sparsity=functools.partial(with_end, end=4)),
    "keywords": own(
        lambda self, *, target_sparsity, **rest: line(rest["step_count"], target_sparsity)
    ),
    "registered": Registered(),
}


def grown(before: float | None, target: float) -> float:
    """A quarter of the target more than what is in force: it needs to be told that."""
    assert before is not None
    return min(before + target / 4, target)


class AddingUp(SparsityScheduleBase):
    def compute_sparsity(  # type: ignore[override]
        self, step_count: int, target_sparsity: float, prev_sparsity: float
    ) -> float:
        return grown(prev_sparsity, target_sparsity)


def before_by_position(self: Any, step: int, target: float, before: float, /) -> float:
    return grown(before, target)


WITH: dict[str, Any] = {
    "three": own(
        lambda self, step_count, target_sparsity, prev_sparsity=None: grown(
            prev_sparsity, target_sparsity
        )
    ),
    "needed": own(lambda self, step_count, target_sparsity, before: grown(before, target_sparsity)),
    "named": own(
        lambda self, step_count, target_sparsity, *, prev_sparsity: grown(
            prev_sparsity, target_sparsity
        )
    ),
    "by position": own(before_by_position),
    "rest": own(lambda self, *arguments: grown(arguments[2], arguments[1])),
    "rest after two": own(
        lambda self, step_count, target_sparsity, *rest: grown(rest[0], target_sparsity)
    ),
    "keywords": own(
        lambda self, step_count, target_sparsity, **rest: grown(
            rest["prev_sparsity"], target_sparsity
        )
    ),
    "keywords alone": own(
        lambda self, **given: grown(given["prev_sparsity"], given["target_sparsity"])
    ),
    "registered": AddingUp(),
}


def counts(schedule: Any, steps: int) -> list[int]:
    """The zeros of a layer of 63 weights after each step, with a target of 80 %."""
    pruner = MagnitudePruner(net(), MagnitudePrunerConfig.uniform(0.8, schedule))
    model = pruner.prepare()
    seen = [zeros(model)[0]]
    for _ in range(steps):
        pruner.step()
        seen.append(zeros(model)[0])
    return seen


@pytest.mark.parametrize("schedule", WITHOUT.values(), ids=WITHOUT)
def test_a_schedule_with_two_parameters_is_followed(schedule: Any) -> None:
    assert counts(schedule, 5) == [0, 12, 25, 37, 50, 50]
    assert last_dense_reading(schedule) == 0  # the callbacks ask it as the pruner does


@pytest.mark.parametrize("schedule", WITH.values(), ids=WITH)
def test_a_schedule_with_three_is_told_what_is_in_force(schedule: Any) -> None:
    assert counts(schedule, 4) == [12, 25, 37, 50, 50]
    assert last_dense_reading(schedule) == -1


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


@pytest.mark.parametrize(
    "function",
    [lambda self: 0.5, lambda self, step: 0.5, lambda self, step, target, prev, more: 0.5],
    ids=["nothing", "one", "four"],
)
def test_one_that_takes_something_else_is_refused_where_it_is_attached(function: Any) -> None:
    with pytest.raises(ValueError, match=r"compute_sparsity\(.*cannot be asked; allowed: "):
        MagnitudePrunerConfig.uniform(0.8, own(function))


def test_the_curves_of_registered_classes_are_known() -> None:
    assert [Registered().sparsity_at(step, 0.8) for step in (0, 1, 4, 9)] == [0, 0.2, 0.8, 0.8]
    curve = [AddingUp().sparsity_at(step, 0.8) for step in range(4)]
    assert curve == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_ours_keep_their_signature_and_their_error() -> None:
    ramp = PolynomialDecaySchedule(total_iters=10, power=3, update_frequency=3)
    assert ramp.compute_sparsity(7, 0.5, 0.4) == ramp.compute_sparsity(7, 0.5, prev_sparsity=0.4)
    with pytest.raises(ValueError, match="prev_sparsity"):
        ramp.compute_sparsity(7, 0.5)
    assert ramp.sparsity_at(7, 0.5) == ramp.compute_sparsity(6, 0.5)


def test_the_pruner_needs_no_previous_sparsity_from_anybody() -> None:
    ramp = PolynomialDecaySchedule(total_iters=10, power=1, update_frequency=3)
    assert counts(ramp, 10) == [0, 0, 0, 16, 16, 16, 33, 33, 33, 50, 50]
