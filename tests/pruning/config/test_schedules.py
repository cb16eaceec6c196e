"""Schedules: worked values, boundaries, properties, the registry, and no torch on the way."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    PolynomialDecaySchedule,
    SparsityScheduleBase,
)
from coreai_opt.pruning.spec import PruneImplBase, PruningScheme
from tests.helpers.pruning import run, walk

STRAIGHT = PolynomialDecaySchedule(total_iters=10, power=1)
LATE = PolynomialDecaySchedule(total_iters=10, begin_step=100, power=3, initial_sparsity=0.1)
RARE = PolynomialDecaySchedule(total_iters=10, power=3, update_frequency=3)
SINGLE = PolynomialDecaySchedule(total_iters=1, initial_sparsity=0.25)
SHORT = PolynomialDecaySchedule(total_iters=4, initial_sparsity=0.25, update_frequency=7)


def about(value: float) -> Any:
    """Equal but for the last bit, where a formula may be written in another order."""
    return pytest.approx(value, rel=0, abs=2e-16)


WORKED = [
    pytest.param(STRAIGHT, 0, 0.0, id="straight-first"),
    pytest.param(STRAIGHT, 5, about(0.5 * 5 / 9), id="straight-middle"),
    pytest.param(STRAIGHT, 9, 0.5, id="straight-last-update"),
    pytest.param(STRAIGHT, 10, 0.5, id="straight-end"),
    pytest.param(STRAIGHT, 11, 0.5, id="straight-after-the-end"),
    pytest.param(LATE, 0, 0.1, id="late-initial-long-before-the-ramp"),
    pytest.param(LATE, 99, 0.1, id="late-initial-just-before-the-ramp"),
    pytest.param(LATE, 100, 0.1, id="late-initial-exactly-at-begin"),
    pytest.param(LATE, 101, about(0.5 - 0.4 * (8 / 9) ** 3), id="late-just-after-begin"),
    pytest.param(LATE, 103, about(0.5 - 0.4 * (6 / 9) ** 3), id="late-middle"),
    pytest.param(LATE, 108, about(0.5 - 0.4 * (1 / 9) ** 3), id="late-before-the-last-update"),
    pytest.param(LATE, 109, 0.5, id="late-last-update"),
    pytest.param(LATE, 110, 0.5, id="late-end"),
    pytest.param(RARE, 3, about(0.5 - 0.5 * (2 / 3) ** 3), id="rare-second"),
    pytest.param(RARE, 6, about(0.5 - 0.5 * (1 / 3) ** 3), id="rare-third"),
    pytest.param(RARE, 9, 0.5, id="rare-last-update"),
    pytest.param(SINGLE, 0, 0.25, id="single-initial-at-its-only-update"),
    pytest.param(SINGLE, 1, 0.5, id="single-target"),
    pytest.param(SHORT, 0, 0.25, id="frequency-above-total-initial"),
    pytest.param(SHORT, 4, 0.5, id="frequency-above-total-target-at-the-end"),
    pytest.param(ConstantSparsitySchedule(), 0, 0.5, id="constant-at-once"),
    pytest.param(ConstantSparsitySchedule(begin_step=3), 2, 0.0, id="constant-before"),
    pytest.param(ConstantSparsitySchedule(begin_step=3), 3, 0.5, id="constant-at-begin"),
    pytest.param(ConstantSparsitySchedule(begin_step=3), 4, 0.5, id="constant-after"),
]


@pytest.mark.parametrize(("schedule", "step", "expected"), WORKED)
def test_worked_value(schedule: SparsityScheduleBase, step: int, expected: Any) -> None:
    assert schedule.compute_sparsity(step, 0.5) == expected
    assert schedule.sparsity_at(step, 0.5) == expected


@pytest.mark.parametrize("step", [0, 3, 6, 9, 10, 11])
def test_at_an_update_and_after_the_end_the_previous_sparsity_is_ignored(step: int) -> None:
    assert RARE.compute_sparsity(step, 0.5, 0.99) == RARE.compute_sparsity(step, 0.5)


def test_offsets_and_not_steps_are_counted_from_begin() -> None:
    ramp = PolynomialDecaySchedule(total_iters=6, begin_step=5, power=1, update_frequency=3)
    values = [ramp.compute_sparsity(step, 0.5, 0.125) for step in range(4, 12)]
    assert values == [0.0, 0.0, 0.125, 0.125, 0.5, 0.125, 0.125, 0.5]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_update_frequency_above_total_iters_leaves_one_update(step: int) -> None:
    assert SHORT.compute_sparsity(step, 0.5, 0.125) == 0.125
    assert SHORT.sparsity_at(step, 0.5) == 0.25


def test_a_larger_power_prunes_earlier() -> None:
    powers = (0.5, 1.0, 2.0, 3.0, 6.0)
    ramps = [PolynomialDecaySchedule(total_iters=10, power=power) for power in powers]
    for step in range(1, 9):  # at both ends of the ramp all are equal
        values = [ramp.compute_sparsity(step, 0.9) for ramp in ramps]
        assert values == sorted(values)
        assert len(set(values)) == len(powers)
    assert {ramp.compute_sparsity(0, 0.9) for ramp in ramps} == {0.0}
    assert {ramp.compute_sparsity(9, 0.9) for ramp in ramps} == {0.9}


RAMPS = st.builds(
    PolynomialDecaySchedule,
    total_iters=st.integers(1, 40),
    begin_step=st.integers(0, 20),
    power=st.floats(0.1, 10),
    initial_sparsity=st.floats(0, 1),
    update_frequency=st.integers(1, 50),
)
TARGETS = st.floats(0, 1)
steadily = settings(max_examples=150, deadline=None)


@steadily
@given(RAMPS, TARGETS)
def test_every_step_equals_the_closed_form(ramp: PolynomialDecaySchedule, target: float) -> None:
    left = lambda share: float(share) ** ramp.power  # noqa: E731
    expected = [walk(ramp, step, target, left) for step in range(ramp.end_step + 3)]
    assert run(ramp, target) == pytest.approx(expected, rel=0, abs=1e-12)


@steadily
@given(st.integers(0, 50), st.integers(0, 100), TARGETS)
def test_the_constant_schedule_has_two_values(begin: int, step: int, target: float) -> None:
    value = ConstantSparsitySchedule(begin_step=begin).compute_sparsity(step, target)
    assert value == (0.0 if step < begin else target)


def test_the_registry_knows_both_schedules_and_no_other_kind() -> None:
    assert SparsityScheduleBase.list_registry_keys()[:2] == ["constant", "polynomial_decay"]
    assert SparsityScheduleBase.get_class("constant") is ConstantSparsitySchedule
    assert SparsityScheduleBase.get_class("polynomial_decay") is PolynomialDecaySchedule
    assert not {"constant", "polynomial_decay"} & {
        *PruneImplBase.list_registry_keys(),
        *PruningScheme.list_registry_keys(),
    }


@pytest.mark.parametrize("build", ["get_class", "maybe_build_from_dict"])
def test_an_unknown_key_is_answered_with_what_exists_and_the_nearest(build: str) -> None:
    key: Any = "polynomial_decy" if build == "get_class" else {"type": "polynomial_decy"}
    with pytest.raises(ValueError, match="polynomial_decy") as caught:
        getattr(SparsityScheduleBase, build)(key)
    assert "constant, polynomial_decay" in str(caught.value)
    assert "did you mean 'polynomial_decay'?" in str(caught.value)


def test_a_dict_with_its_type_builds_a_schedule_and_keeps_its_type() -> None:
    fields = {"type": "polynomial_decay", "total_iters": 10, "update_frequency": 3}
    assert SparsityScheduleBase.maybe_build_from_dict(fields) == RARE
    assert fields["type"] == "polynomial_decay"


def test_a_ready_schedule_is_handed_back_unchanged() -> None:
    assert SparsityScheduleBase.maybe_build_from_dict(RARE) is RARE


@pytest.mark.parametrize("wrong", [{}, {"total_iters": 3}, {"type": "constant", "power": 2}])
def test_a_dict_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="power" if "power" in wrong else "'type'"):
        SparsityScheduleBase.maybe_build_from_dict(wrong)


@pytest.mark.parametrize("kind", [None, 3, ["constant"]])
def test_a_type_that_is_no_string_is_a_value_error_too(kind: Any) -> None:
    with pytest.raises(ValueError, match="constant, polynomial_decay"):
        SparsityScheduleBase.maybe_build_from_dict({"type": kind})


def test_a_schedule_of_ones_own_is_known_by_its_key_and_the_key_is_taken() -> None:
    @SparsityScheduleBase.register("half_way")
    class HalfWay(SparsityScheduleBase):
        def compute_sparsity(
            self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
        ) -> float:
            return target_sparsity / 2

    built = SparsityScheduleBase.maybe_build_from_dict({"type": "half_way"})
    assert (type(built), built.sparsity_at(7, 0.5), built.end_step) == (HalfWay, 0.25, None)
    with pytest.raises(ValueError, match=r"'half_way' is already registered, for .*HalfWay"):
        SparsityScheduleBase.register("half_way")(ConstantSparsitySchedule)
    assert SparsityScheduleBase.get_class("half_way") is HalfWay
