"""Cosine, exponential and multi-step: worked values, boundaries, closed forms, what is refused."""

import json
import pickle
from decimal import Decimal, localcontext
from fractions import Fraction
from math import isfinite, log, pi, sin, sqrt
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    CosineSparsitySchedule,
    ExponentialSparsitySchedule,
    ModuleMagnitudePrunerConfig,
    MultiStepSparsitySchedule,
    PolynomialDecaySchedule,
    SparsityScheduleBase,
)
from tests.helpers.pruning import run, walk

COSINE = CosineSparsitySchedule(total_iters=7, begin_step=100, initial_sparsity=0.125)
RARE_COSINE = CosineSparsitySchedule(total_iters=10, update_frequency=3)
SINGLE_COSINE = CosineSparsitySchedule(total_iters=1, initial_sparsity=0.25)
# What is left halves at each of four updates: 1, 1/2, 1/4, 1/8; 1/8 is taken off for the end.
HALVING = ExponentialSparsitySchedule(
    total_iters=4, begin_step=100, rate=log(8), initial_sparsity=0.15
)
RARE_HALVING = ExponentialSparsitySchedule(total_iters=10, rate=log(8), update_frequency=3)
SHORT_HALVING = ExponentialSparsitySchedule(
    total_iters=4, initial_sparsity=0.25, update_frequency=7
)
ABRUPT = ExponentialSparsitySchedule(total_iters=4, rate=1e4)
ROUNDS = MultiStepSparsitySchedule(milestones=(3, 5, 8), levels=(0.25, 0.5, 1))
AT_ONCE = MultiStepSparsitySchedule(milestones=(0,), levels=(1,))
EARLY = MultiStepSparsitySchedule(milestones=(0, 4, 6), levels=(0, 1, 1))

RARE_POLY = PolynomialDecaySchedule(total_iters=10, power=3, update_frequency=3)
LATE = ConstantSparsitySchedule(begin_step=4)
RARE = [RARE_COSINE, RARE_HALVING, RARE_POLY]
ALL = [COSINE, HALVING, ROUNDS]


def about(value: float) -> Any:
    """Equal but for the last bits, where a formula may be written in another order."""
    return pytest.approx(value, rel=0, abs=4e-16)


WORKED = [
    pytest.param(COSINE, 0, 0.125, id="cosine-long-before-begin"),
    pytest.param(COSINE, 99, 0.125, id="cosine-just-before-begin"),
    pytest.param(COSINE, 100, 0.125, id="cosine-at-begin"),
    pytest.param(COSINE, 101, about(0.5 - 0.375 * (2 + sqrt(3)) / 4), id="cosine-after-begin"),
    pytest.param(COSINE, 102, about(0.5 - 0.375 * 3 / 4), id="cosine-a-third"),
    pytest.param(COSINE, 103, about(0.5 - 0.375 / 2), id="cosine-middle"),
    pytest.param(COSINE, 104, about(0.5 - 0.375 / 4), id="cosine-two-thirds"),
    pytest.param(COSINE, 105, about(0.5 - 0.375 * (2 - sqrt(3)) / 4), id="cosine-before-last"),
    pytest.param(COSINE, 106, 0.5, id="cosine-last-update"),
    pytest.param(COSINE, 107, 0.5, id="cosine-end"),
    pytest.param(COSINE, 108, 0.5, id="cosine-after-the-end"),
    pytest.param(RARE_COSINE, 3, about(0.125), id="cosine-rare-second"),
    pytest.param(RARE_COSINE, 6, about(0.375), id="cosine-rare-third"),
    pytest.param(RARE_COSINE, 9, 0.5, id="cosine-rare-last-update"),
    pytest.param(SINGLE_COSINE, 0, 0.25, id="cosine-initial-at-its-only-update"),
    pytest.param(SINGLE_COSINE, 1, 0.5, id="cosine-target-after-its-only-update"),
    pytest.param(HALVING, 0, 0.15, id="exponential-long-before-begin"),
    pytest.param(HALVING, 99, 0.15, id="exponential-just-before-begin"),
    pytest.param(HALVING, 100, 0.15, id="exponential-at-begin"),
    pytest.param(HALVING, 101, about(0.5 - 0.35 * 3 / 7), id="exponential-after-begin"),
    pytest.param(HALVING, 102, about(0.5 - 0.35 / 7), id="exponential-before-last"),
    pytest.param(HALVING, 103, 0.5, id="exponential-last-update"),
    pytest.param(HALVING, 104, 0.5, id="exponential-end"),
    pytest.param(HALVING, 105, 0.5, id="exponential-after-the-end"),
    pytest.param(RARE_HALVING, 3, about(0.5 * 4 / 7), id="exponential-rare-second"),
    pytest.param(RARE_HALVING, 6, about(0.5 * 6 / 7), id="exponential-rare-third"),
    pytest.param(RARE_HALVING, 9, 0.5, id="exponential-rare-last-update"),
    pytest.param(SHORT_HALVING, 0, 0.25, id="exponential-frequency-above-total-initial"),
    pytest.param(SHORT_HALVING, 4, 0.5, id="exponential-frequency-above-total-end"),
    pytest.param(ABRUPT, 0, 0.0, id="exponential-abrupt-begin"),
    pytest.param(ABRUPT, 1, 0.5, id="exponential-abrupt-all-at-the-second-update"),
    pytest.param(ROUNDS, 0, 0.0, id="multistep-begin"),
    pytest.param(ROUNDS, 2, 0.0, id="multistep-before-the-first-milestone"),
    pytest.param(ROUNDS, 3, 0.125, id="multistep-at-the-first-milestone"),
    pytest.param(ROUNDS, 4, 0.125, id="multistep-before-the-second"),
    pytest.param(ROUNDS, 5, 0.25, id="multistep-at-the-second"),
    pytest.param(ROUNDS, 7, 0.25, id="multistep-before-the-last"),
    pytest.param(ROUNDS, 8, 0.5, id="multistep-at-the-last"),
    pytest.param(ROUNDS, 9, 0.5, id="multistep-after-the-last"),
    pytest.param(AT_ONCE, 0, 0.5, id="multistep-all-at-step-0"),
    pytest.param(EARLY, 3, 0.0, id="multistep-level-0"),
    pytest.param(EARLY, 4, 0.5, id="multistep-level-1-before-the-last-milestone"),
]


@pytest.mark.parametrize(("schedule", "step", "expected"), WORKED)
def test_worked_value(schedule: SparsityScheduleBase, step: int, expected: Any) -> None:
    assert schedule.compute_sparsity(step, 0.5) == expected
    assert schedule.sparsity_at(step, 0.5) == expected
    assert schedule.last_update(step) == step


@pytest.mark.parametrize("schedule", RARE, ids=["cosine", "exponential", "poly"])
@pytest.mark.parametrize("step", [1, 2, 4, 5, 7, 8])
def test_between_updates_the_previous_sparsity_is_kept(
    schedule: SparsityScheduleBase, step: int
) -> None:
    assert schedule.compute_sparsity(step, 0.5, prev_sparsity=0.0625) == 0.0625
    with pytest.raises(ValueError, match=f"step {step} lies between two updates"):
        schedule.compute_sparsity(step, 0.5)
    last = schedule.last_update(step)
    assert last == step - step % 3
    assert schedule.sparsity_at(step, 0.5) == schedule.compute_sparsity(last, 0.5)


@pytest.mark.parametrize("step", [2, 3, 4, 5, 8, 9])
def test_the_multi_step_schedule_needs_no_previous_sparsity(step: int) -> None:
    assert ROUNDS.compute_sparsity(step, 0.5, 0.99) == ROUNDS.compute_sparsity(step, 0.5)


def test_end_step_is_the_first_step_with_the_target_for_good() -> None:
    assert [schedule.end_step for schedule in (COSINE, *RARE, HALVING)] == [107, *[10] * 3, 104]
    assert [schedule.end_step for schedule in (ROUNDS, AT_ONCE, EARLY, LATE)] == [8, 0, 4, 4]
    single = PolynomialDecaySchedule(total_iters=1, initial_sparsity=0.25)
    assert (single.end_step, SHORT_HALVING.end_step) == (1, 4)


GRID: dict[str, Any] = {
    "total_iters": st.integers(1, 40),
    "begin_step": st.integers(0, 20),
    "initial_sparsity": st.floats(0, 1),
    "update_frequency": st.integers(1, 50),
}
RATES = st.one_of(st.floats(1e-9, 1e4), st.sampled_from([5e-324, 1e-300, 1e-9, 1e4, 1e300]))
COSINES = st.builds(CosineSparsitySchedule, **GRID)
EXPONENTIALS = st.builds(ExponentialSparsitySchedule, rate=RATES, **GRID)
POLYNOMIALS = st.builds(PolynomialDecaySchedule, power=st.floats(0.1, 10), **GRID)
RAMPS = POLYNOMIALS | COSINES | EXPONENTIALS
TARGETS = st.floats(0, 1)
steadily = settings(max_examples=150, deadline=None)


@st.composite
def multi_steps(draw: Any) -> MultiStepSparsitySchedule:
    milestones = sorted(draw(st.sets(st.integers(0, 40), min_size=1, max_size=6)))
    size = len(milestones) - 1
    levels = sorted(draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)))
    return MultiStepSparsitySchedule(milestones=milestones, levels=[*levels, 1])


@steadily
@given(COSINES, TARGETS)
def test_cosine_is_the_square_of_a_sine(ramp: CosineSparsitySchedule, target: float) -> None:
    left = lambda ahead: sin(pi / 2 * float(ahead)) ** 2  # noqa: E731
    expected = [walk(ramp, step, target, left) for step in range(ramp.end_step + 3)]
    assert run(ramp, target) == pytest.approx(expected, rel=0, abs=1e-15)


def exponential_left(ahead: Fraction, rate: float) -> float:
    """The formula as it is written, in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        x, done = Decimal(rate), 1 - ahead
        t = Decimal(done.numerator) / Decimal(done.denominator)
        return float(((-x * t).exp() - (-x).exp()) / (1 - (-x).exp()))


@steadily
@given(st.builds(ExponentialSparsitySchedule, rate=st.floats(1e-9, 1e4), **GRID), TARGETS)
def test_exponential_equals_its_formula(ramp: ExponentialSparsitySchedule, target: float) -> None:
    left = lambda ahead: exponential_left(ahead, ramp.rate)  # noqa: E731
    expected = [walk(ramp, step, target, left) for step in range(ramp.end_step + 3)]
    assert run(ramp, target) == pytest.approx(expected, rel=0, abs=2e-15)


@pytest.mark.parametrize("rate", [1e-300, 1e-16, 1e-12, 1e-9])
def test_a_small_rate_is_a_straight_line(rate: float) -> None:
    straight = PolynomialDecaySchedule(total_iters=40, power=1)
    small = ExponentialSparsitySchedule(total_iters=40, rate=rate)
    assert run(small, 0.9) == pytest.approx(run(straight, 0.9), rel=0, abs=rate + 1e-15)
    assert run(small, 0.9)[20] > 0.4


@pytest.mark.parametrize("rate", [1e3, 1e4, 1e300])
def test_a_large_rate_prunes_all_at_the_second_update(rate: float) -> None:
    values = run(ExponentialSparsitySchedule(total_iters=5, begin_step=2, rate=rate), 0.9)
    assert values == [0.0] * 3 + [0.9] * 7


@steadily
@given(st.floats(0.01, 20), st.floats(1.1, 5), st.integers(1, 38))
def test_a_larger_rate_is_never_behind(rate: float, factor: float, step: int) -> None:
    slow = ExponentialSparsitySchedule(total_iters=40, rate=rate)
    fast = ExponentialSparsitySchedule(total_iters=40, rate=rate * factor)
    assert slow.compute_sparsity(step, 0.9) <= fast.compute_sparsity(step, 0.9)


@steadily
@given(multi_steps(), TARGETS)
def test_multi_step_looks_back_for_its_milestone(
    rounds: MultiStepSparsitySchedule, target: float
) -> None:
    known = dict(zip(rounds.milestones, rounds.levels, strict=True))
    level, expected = 0.0, []
    for step in range(rounds.end_step + 3):
        level = known.get(step, level)
        expected.append(target * level)
    assert run(rounds, target) == expected


@steadily
@given(RAMPS, TARGETS)
def test_first_and_last_update_are_exact(ramp: Any, target: float) -> None:
    updates = range(ramp.begin_step, ramp.end_step, ramp.update_frequency)
    assert ramp.compute_sparsity(updates[0], target) == ramp.initial_sparsity
    if len(updates) > 1:
        assert ramp.compute_sparsity(updates[-1], target) == target
    assert ramp.compute_sparsity(ramp.end_step, target) == target


@steadily
@given(RAMPS | multi_steps(), TARGETS)
def test_a_run_goes_one_way_between_its_ends(schedule: Any, target: float) -> None:
    values = run(schedule, target)
    initial = getattr(schedule, "initial_sparsity", 0.0)
    low, high = sorted((initial, target))
    assert all(isfinite(value) and low <= value <= high for value in values)
    assert values == sorted(values, reverse=initial > target)
    assert values == [schedule.sparsity_at(step, target) for step in range(len(values))]
    assert values[schedule.end_step :] == [target] * 3


@pytest.mark.parametrize(
    "flat",
    [
        ExponentialSparsitySchedule(
            total_iters=4, initial_sparsity=0.26561897885608104, rate=5e-324
        ),
        PolynomialDecaySchedule(total_iters=4, initial_sparsity=0.26561897885608104, power=1e-300),
    ],
    ids=["exponential", "poly"],
)
def test_rounding_does_not_lead_below_the_initial_sparsity(flat: Any) -> None:
    assert 1.0 + (flat.initial_sparsity - 1.0) < flat.initial_sparsity  # what the formula gives
    values = run(flat, 1.0)
    assert values == sorted(values)
    assert (values[0], values[3]) == (flat.initial_sparsity, 1.0)


@pytest.mark.parametrize("schedule", [*ALL, RARE_POLY, LATE], ids=lambda one: one.registry_key())
@pytest.mark.parametrize(("step", "target"), [(0, -0.1), (102, 1.1), (999, float("nan"))])
def test_a_target_outside_0_to_1_is_refused(
    schedule: SparsityScheduleBase, step: int, target: float
) -> None:
    with pytest.raises(ValueError, match=f"target_sparsity is {target}; allowed: 0 to 1"):
        schedule.compute_sparsity(step, target)


BAD = [
    *[("polynomial_decay", "power", value, "") for value in (0, float("nan"), float("inf"))],
    *[("polynomial_decay", "total_iters", value, "") for value in (0, 10.5, None)],
    ("polynomial_decay", "powr", 2, ""),
    ("cosine", "initial_sparsity", -0.1, ""),
    ("cosine", "total_iters", 0, ""),
    ("cosine", "begin_step", -1, ""),
    ("cosine", "initial_sparsity", 1.5, ""),
    ("cosine", "update_frequency", 0, ""),
    ("cosine", "power", 3, ""),
    *[("exponential", "rate", value, "") for value in (0, float("nan"), float("inf"))],
    ("multistep", "milestones", [], ""),
    ("multistep", "milestones", [3, 3], r"\[3, 3\] is not strictly increasing: 3 follows 3"),
    ("multistep", "milestones", [-1, 3], ""),
    ("multistep", "levels", [1], r"\[1.0\] should have as many .* milestones, 2 and not 1"),
    ("multistep", "levels", [1, 0.5], r"\[1.0, 0.5\] decreases: 0.5 follows 1.0"),
    ("multistep", "levels", [0.5, 0.9], r"\[0.5, 0.9\] ends at 0.9 and not at 1"),
    ("multistep", "levels", [0.5, 1.5], ""),
]
GOOD: dict[str, dict[str, Any]] = {
    "polynomial_decay": {"total_iters": 10},
    "cosine": {"total_iters": 10},
    "exponential": {"total_iters": 10},
    "multistep": {"milestones": [3, 5], "levels": [0.5, 1]},
}


@pytest.mark.parametrize(("key", "field", "value", "said"), BAD)
def test_a_bad_value_is_refused_with_field_value_and_bound(
    key: str, field: str, value: Any, said: str
) -> None:
    cls = SparsityScheduleBase.get_class(key)
    with pytest.raises(ValueError, match=said or field) as caught:
        cls(**{**GOOD[key], field: value})
    (details,) = caught.value.errors()  # type: ignore[attr-defined]
    assert details["loc"][0] == field
    assert str(details["input"]) in str(caught.value)


def test_defaults() -> None:
    grid = {"total_iters": 3, "begin_step": 0, "initial_sparsity": 0.0, "update_frequency": 1}
    assert CosineSparsitySchedule(total_iters=3).model_dump() == grid
    assert ExponentialSparsitySchedule(total_iters=3).model_dump() == {**grid, "rate": 5.0}
    assert PolynomialDecaySchedule(total_iters=3).model_dump() == {**grid, "power": 3.0}


def test_the_registry_knows_our_schedules_in_their_order() -> None:
    ours = ["constant", "polynomial_decay", "cosine", "exponential", "multistep"]
    assert SparsityScheduleBase.list_registry_keys()[:5] == ours
    classes = [CosineSparsitySchedule, ExponentialSparsitySchedule, MultiStepSparsitySchedule]
    assert [SparsityScheduleBase.get_class(key) for key in ours[2:]] == classes
    assert [cls.registry_key() for cls in classes] == ours[2:]


@pytest.mark.parametrize("schedule", ALL, ids=["cosine", "exponential", "multistep"])
def test_a_schedule_survives_every_way_it_is_written(schedule: SparsityScheduleBase) -> None:
    fields = schedule.model_dump()
    cls, typed = type(schedule), {"type": schedule.registry_key(), **fields}
    config = ModuleMagnitudePrunerConfig(sparsity_schedule=schedule)
    twins = [
        cls.model_validate(fields),
        cls.model_validate(json.loads(json.dumps(fields))),
        cls.model_validate_json(schedule.model_dump_json()),
        cls.model_validate(yaml.safe_load(yaml.dump(fields))),  # plain YAML: no tag of Python's
        SparsityScheduleBase.maybe_build_from_dict(typed),
        ModuleMagnitudePrunerConfig.model_validate(config.model_dump()).sparsity_schedule,
        pickle.loads(pickle.dumps(schedule)),
    ]
    assert twins == [schedule] * len(twins)
    assert {*twins, schedule} == {schedule}
