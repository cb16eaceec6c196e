"""Until when a schedule prunes nothing: where jobs of a sweep may still be one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    CosineSparsitySchedule,
    ExponentialSparsitySchedule,
    MagnitudePrunerConfig,
    MultiStepSparsitySchedule,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.config.dense_reading import last_dense_reading
from coreai_opt.pruning.config.schedules import SparsityScheduleBase
from lightning_callbacks import ScheduledPruning

Multi = MultiStepSparsitySchedule
RAMPS = (PolynomialDecaySchedule, CosineSparsitySchedule, ExponentialSparsitySchedule)

KNOWN = [
    (None, -1),
    (ConstantSparsitySchedule(begin_step=0), -1),
    (ConstantSparsitySchedule(begin_step=1), 0),
    (ConstantSparsitySchedule(begin_step=7), 6),
    (Multi(milestones=(0, 4), levels=(0.5, 1)), -1),
    (Multi(milestones=(0, 4), levels=(0, 1)), 0),
    (Multi(milestones=(3,), levels=(1,)), 2),
    (Multi(milestones=(3, 9), levels=(0.5, 1)), 2),
    (Multi(milestones=(3, 9), levels=(0, 1)), 3),
    *[(ramp(total_iters=9), 0) for ramp in RAMPS],
    *[(ramp(total_iters=9, begin_step=5), 5) for ramp in RAMPS],
    *[(ramp(total_iters=1, begin_step=5), 5) for ramp in RAMPS],
    *[(ramp(total_iters=9, begin_step=5, update_frequency=4), 5) for ramp in RAMPS],
    *[(ramp(total_iters=9, begin_step=5, initial_sparsity=0.1), -1) for ramp in RAMPS],
    *[(ramp(total_iters=9, initial_sparsity=0.1), -1) for ramp in RAMPS],
]


@pytest.mark.parametrize(("schedule", "reading"), KNOWN, ids=lambda value: str(value))
def test_the_last_reading_at_which_nothing_is_pruned(schedule: Any, reading: int) -> None:
    assert last_dense_reading(schedule) == reading


@st.composite
def schedules(draw: st.DrawFn) -> SparsityScheduleBase:
    step = st.integers(0, 30)
    kind = draw(st.sampled_from(["constant", "multistep", "ramp"]))
    if kind == "constant":
        return ConstantSparsitySchedule(begin_step=draw(step))
    if kind == "multistep":
        milestones = sorted(draw(st.sets(step, min_size=1, max_size=4)))
        shares = st.floats(0, 1) | st.just(0.0)
        levels = sorted(draw(st.lists(shares, min_size=len(milestones) - 1, max_size=3)))
        levels = levels[: len(milestones) - 1]
        return Multi(milestones=tuple(milestones), levels=(*levels, 1.0))
    ramp = draw(st.sampled_from(RAMPS))
    return ramp(
        total_iters=draw(st.integers(1, 20)),
        begin_step=draw(step),
        update_frequency=draw(st.integers(1, 7)),
        initial_sparsity=draw(st.sampled_from([0.0, 0.0, 0.3])),
    )


@given(schedule=schedules(), target=st.floats(0.01, 1))
def test_nothing_is_pruned_up_to_there(schedule: SparsityScheduleBase, target: float) -> None:
    last = last_dense_reading(schedule)
    asked = 0.0
    for reading in range(last + 1):
        asked = schedule.compute_sparsity(reading, target, asked)
        assert asked == 0, reading
    assert last >= -1
    assert last <= (schedule.end_step or 0)


class Own:
    """A schedule of somebody's own: any object with the one method."""

    def __init__(self, prunes_from: int, **attributes: Any) -> None:
        self.prunes_from = prunes_from
        vars(self).update(attributes)

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        return target_sparsity if step_count >= self.prunes_from else prev_sparsity or 0.0


@pytest.mark.parametrize(
    ("schedule", "reading"),
    [
        (Own(0), -1),
        (Own(1), 0),
        (Own(9), 0),
        (Own(9, begin_step=9), 8),
        (Own(10, begin_step=9), 9),
        (Own(8, begin_step=9), -1),
        (Own(0, begin_step=9), -1),
        (Own(9, milestones=[9, 12]), 8),
        (Own(9, milestones=[]), 0),
        (Own(9, begin_step=None), -1),
        (Own(9, begin_step="9"), -1),
        (Own(9, begin_step=0.1), -1),
    ],
)
def test_of_a_schedule_of_ones_own_what_its_attributes_tell(schedule: Own, reading: int) -> None:
    assert last_dense_reading(schedule) == reading


def config(*steps: int | None) -> MagnitudePrunerConfig:
    """Return a config with a schedule for the whole, and one for each of some modules."""
    whole, *others = ({"type": "constant", "begin_step": step} for step in steps)
    spec = {"op_state_spec": {"*": {"target_sparsity": 0.5}}}
    modules = {
        f"layer{index}": {**spec, "sparsity_schedule": schedule}
        for index, schedule in enumerate(others)
    }
    return MagnitudePrunerConfig.model_validate(
        {
            "global_config": {**spec, "sparsity_schedule": whole},
            "module_name_configs": modules or None,
        }
    )


def test_the_first_schedule_that_prunes_decides() -> None:
    assert ScheduledPruning(config=config(9)).dense_until == 8
    assert ScheduledPruning(config=config(9, 5)).dense_until == 4
    assert ScheduledPruning(config=config(5, 9)).dense_until == 4
    assert ScheduledPruning(config=config(9, 7, 0)).dense_until == -1


def test_modules_without_a_schedule_follow_that_of_the_callback() -> None:
    modules = {"layer": {"sparsity_schedule": {"type": "constant", "begin_step": 3}}}
    later = ConstantSparsitySchedule(begin_step=6)
    assert ScheduledPruning(later, config={"module_name_configs": modules}).dense_until == 2
    assert ScheduledPruning(later, config={"module_name_configs": {"layer": None}}).dense_until == 5
