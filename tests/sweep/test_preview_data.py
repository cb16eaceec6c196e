"""Ramps against lengths, what earlier records tell, groups of seeds, warnings: all pure."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.pruning.config import ConstantSparsitySchedule, MultiStepSparsitySchedule
from coreai_opt.report.formatting import n_m_patterns
from coreai_opt.runs.paths import RunPaths
from coreai_opt.sweep.plan import Point
from coreai_opt.sweep.preview.cautions import caution
from coreai_opt.sweep.preview.history import EarlierTraining, History, model_and_data_of
from coreai_opt.sweep.preview.planned import Preview, Standing, label_of, seed_groups, standing
from coreai_opt.sweep.preview.ramps import Ramp, TrainingLength, length_of, ramp_of, target_of
from tests.helpers.previews import LENGTH, ramp, run, write_checkpoint_name, write_record

UNKNOWN = TrainingLength()


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (ramp(), "0 -> 400 of 550"),
        (ramp(begin_step=100), "100 -> 500 of 550"),
        (ramp(UNKNOWN), "0 -> 400 of unknown"),
        (ramp(interval="epoch", total_iters=6), "0 -> 6 of 10 epochs"),
        (ramp(UNKNOWN, "epoch", total_iters=6), "0 -> 6 of unknown (epochs)"),
        (ramp(TrainingLength(epochs=7), "epoch", total_iters=6), "0 -> 6 of 7 epochs"),
        (ramp(UNKNOWN, "percent", begin_step=10, total_iters=60), "10 -> 70 of 100 %"),
        (Ramp(ConstantSparsitySchedule(begin_step=40), "step", 0.5, LENGTH), "at 40 of 550"),
        (
            Ramp(
                MultiStepSparsitySchedule(milestones=(9, 20), levels=(0.5, 1)), "step", 0.5, LENGTH
            ),
            "9 -> 20 of 550",
        ),
    ],
)
def test_a_ramp_in_numbers(shown: Ramp, text: str) -> None:
    assert shown.text() == text


@pytest.mark.parametrize(
    ("shown", "axis", "span", "values"),
    [
        # power 1 over 400 steps to 90 %: the last of 400 updates is at step 399.
        (ramp(), "steps", 550, {0: 0.0, 399: 0.9, 550: 0.9}),
        # 55 steps an epoch: two epochs are finished at step 110.
        (
            ramp(interval="epoch", begin_step=1, total_iters=2, target=0.5),
            "steps",
            550,
            {54: 0.0, 55: 0.0, 109: 0.0, 110: 0.5, 550: 0.5},
        ),
        (
            ramp(interval="percent", begin_step=49, total_iters=2, target=0.8),
            "steps",
            550,
            {274: 0.0, 275: 0.8},
        ),
        (ramp(UNKNOWN), "steps", 440, {399: 0.9}),
        (ramp(UNKNOWN, "percent", total_iters=50), "percent", 100, {49: 0.9}),
        (ramp(TrainingLength(epochs=7), "epoch", total_iters=6), "epochs", 7, {5: 0.9, 7: 0.9}),
    ],
)
def test_a_curve_over_its_axis(shown: Ramp, axis: str, span: int, values: dict[int, float]) -> None:
    assert (shown.axis, shown.span) == (axis, span)
    for position, value in values.items():
        assert shown.at(position) == pytest.approx(value), position


@pytest.mark.parametrize(
    ("shown", "never", "late"),
    [
        (ramp(total_iters=495), False, False),  # the last epoch begins at step 495
        (ramp(total_iters=496), False, True),
        (ramp(interval="epoch", total_iters=9), False, False),
        (ramp(interval="epoch", total_iters=10), False, True),
        (ramp(interval="percent", total_iters=90), False, False),
        (ramp(interval="percent", total_iters=91), False, True),
        # 200 steps are 3 epochs and a part of the fourth.
        (ramp(TrainingLength(200, 55, 10), "epoch", total_iters=9), True, False),
        (ramp(TrainingLength(200, 55, 10), "epoch", total_iters=3), False, True),
        (ramp(UNKNOWN), False, False),
        (ramp(UNKNOWN, "epoch", total_iters=6), False, False),
    ],
)
def test_a_target_that_is_late_or_never_reached(shown: Ramp, never: bool, late: bool) -> None:
    assert (shown.is_never_reached, shown.is_late) == (never, late)


def weight(**fields: Any) -> dict[str, Any]:
    return {"pruning": {"global_config": {"op_state_spec": {"weight": fields}}}}


@pytest.mark.parametrize(
    ("config", "target"),
    [
        (weight(target_sparsity=0.8), 0.8),
        (weight(target_sparsity=0.5, pruning_scheme={"type": "n_m", "n": 1, "m": 4}), 0.75),
        (weight(target_sparsity=0, pruning_scheme={"type": "n_m", "n": 1, "m": 4}), 0.0),
        (weight(target_sparsity=0.5, pruning_scheme={"type": "block"}), 0.5),
        ({}, None),
        ({"pruning": None}, None),
    ],
)
def test_the_target_of_a_config(config: dict[str, Any], target: float | None) -> None:
    assert target_of(config) == target


def n_of_m(n: Any, m: Any, target: float = 0.5) -> dict[str, Any]:
    return weight(target_sparsity=target, pruning_scheme={"type": "n_m", "n": n, "m": m})


def test_an_n_m_pattern_is_said_with_what_it_keeps_once() -> None:
    configs = [n_of_m(2, 4), n_of_m(1, 4), n_of_m(2, 4), n_of_m(1, 3)]
    assert n_m_patterns(configs) == [
        "pattern 2:4, n of m kept, 50 % zeros",
        "pattern 1:4, n of m kept, 75 % zeros",
        "pattern 1:3, n of m kept, 66.67 % zeros",
    ]
    shown = preview(replace(run({"power": "1"}), point=Point((), {}, (), n_of_m(2, 4))))
    caution(shown)
    assert shown.sentences == ["pattern 2:4, n of m kept, 50 % zeros"]


@pytest.mark.parametrize(
    "config",
    [
        {"schedule": None, **n_of_m(2, 4)},
        n_of_m(2, 4, target=0),
        weight(target_sparsity=0.5, pruning_scheme={"type": "block"}),
        n_of_m("2", None),
        n_of_m(1, 0),
        {"pruning": "n_m"},
        {},
    ],
)
def test_what_is_dense_or_no_n_m_pattern_has_no_sentence(config: dict[str, Any]) -> None:
    assert n_m_patterns([config]) == []


def test_what_is_not_a_ramp_of_ours() -> None:
    assert ramp_of({"schedule": None}, LENGTH) == "none"
    own = {"schedule": {"_target_": "my.module.Schedule"}, **weight(target_sparsity=0.5)}
    assert ramp_of(own, LENGTH) == "unknown"


def config(width: int = 8, workers: int = 0, epochs: int = 10, **data: Any) -> dict[str, Any]:
    return {
        "model": {"_target_": "my.Net", "width": width},
        "data": {"_target_": "my.Data", "num_workers": workers, "seed": 1, **data},
        "trainer": {"max_epochs": epochs, "max_steps": -1, "devices": 1},
    }


def earlier(steps: int, seconds: float | None, **fields: Any) -> EarlierTraining:
    return EarlierTraining(model_and_data_of(config(**fields)), "", steps, None, seconds)


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        (100, 12.0),  # the median of 10, 12 and 20
        (200, 24.0),  # 1,000 steps took 120 s: 0.12 s each more
        (2000, 240.0),
        (None, None),
    ],
)
def test_the_time_by_earlier_trainings(steps: int | None, seconds: float | None) -> None:
    known = [(100, 10.0), (100, 20.0), (100, 12.0), (1000, 120.0), (100, None)]
    history = History([earlier(*one) for one in known])
    found = history.seconds(config(workers=4), steps)
    assert found == (None if seconds is None else pytest.approx(seconds))
    assert history.count([config(), config(workers=2)]) == 5
    assert history.seconds(config(width=9), steps) is None
    assert history.count([config(width=9)]) == 0
    assert History([]).seconds(config(), steps) is None


@pytest.mark.parametrize(
    ("known", "steps", "seconds"),
    [
        ([(100, 12.0)], 400, 48.0),
        ([(100, 12.0)], 401, None),
        ([(100, 12.0)], 25, 3.0),
        ([(100, 12.0)], 24, None),
        # 10 s besides the steps, of which each takes 0.1 s.
        ([(100, 20.0), (500, 60.0)], 5, 10.5),
        ([(100, 20.0), (500, 60.0)], 1000, 110.0),
        # Too near to each other for a line: in proportion to the nearest.
        ([(100, 12.0), (110, 22.0)], 50, 6.0),
        # A longer run that took less time: no shorter than that.
        ([(100, 20.0), (500, 10.0)], 600, 10.0),
        # The line is below zero there.
        ([(1000, 100.0), (2000, 300.0)], 100, 10.0),
    ],
)
def test_the_time_of_another_length(
    known: list[tuple[int, float]], steps: int, seconds: float | None
) -> None:
    history = History([earlier(*one) for one in known])
    found = history.seconds(config(), steps)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_records_are_read_once_and_only_those_that_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "sweep" / "a", config(), "1", wall_seconds=30.0)
    write_record(tmp_path / "sweep" / "b", config(), "2", status="failed", training=None)
    saved = {"id": "x", "steps": 100, "seconds_saved": 20.0}
    write_record(tmp_path / "single", config(), "3", wall_seconds=30.0, trunk=saved)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "result.json").write_text("{")
    history = History.read([tmp_path / "sweep", tmp_path, tmp_path / "missing"])
    assert sorted(one.seconds or 0 for one in history.same(config())) == [30.0, 50.0]


def test_of_many_records_the_newest_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("coreai_opt.sweep.preview.history.MOST_RECORDS", 2)
    for number, written in enumerate((300, 100, 400, 200)):
        write_record(tmp_path / f"run{number}", config(), f"{number}", wall_seconds=1.0 + written)
        os.utime(RunPaths(tmp_path / f"run{number}").result, (written, written))
    history = History.read([tmp_path])
    assert sorted(one.seconds or 0 for one in history.same(config())) == [301.0, 401.0]


def test_the_length_is_that_of_an_earlier_training_with_the_same_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    training = {"epochs": 10, "steps": 80, "steps_per_epoch": 8}
    write_record(tmp_path / "run", config(), "1", training=training)
    history = History.read([tmp_path])
    assert length_of(config(), history) == TrainingLength(80, 8, 10)
    assert length_of(config(epochs=20), history) == TrainingLength(None, None, 20)
    assert length_of(config(epochs=-1), history) == TrainingLength()


def preview(*runs: Any, is_sweep: bool = True, knobs: tuple[str, ...] = ("power",)) -> Preview:
    return Preview("title", knobs, runs, is_sweep)


def test_runs_that_differ_in_their_seed_are_one_group() -> None:
    done = Standing("completed", will_run=False)
    runs = [run({"power": text}, seed) for seed in (1, 2, 3) for text in ("1", "2")]
    runs.append(run({"power": "1"}, 4, done))
    groups = seed_groups(runs)
    assert [(group.varied, group.seeds) for group in groups] == [
        ({"power": "1"}, ("1", "2", "3", "4")),
        ({"power": "2"}, ("1", "2", "3")),
    ]
    assert groups[0].states == {"new": 3, "done": 1}


@pytest.mark.parametrize(
    ("state", "resume", "text", "step"),
    [
        ("interrupted", "auto", "to resume", 275),
        ("interrupted", "never", "interrupted, begins anew", None),
        ("running", "auto", "running", None),
        ("completed", "auto", "done, runs again", None),
    ],
)
def test_what_a_run_begins_with(
    state: Any, resume: str, text: str, step: int | None, tmp_path: Path
) -> None:
    for written in (110, 275):
        write_checkpoint_name(tmp_path, written)
    how = standing(RunPaths(tmp_path), state, True, resume)
    assert (how.text, how.step) == (text, step)


def test_ramps_are_called_by_what_tells_them_apart() -> None:
    runs = [
        run({"power": text, "optimizer.lr": rate}) for text in ("1", "2") for rate in ("0.1", "0.2")
    ]
    shown = preview(*runs, knobs=("optimizer.lr", "power"))
    assert [label_of(one, shown) for one in shown.ramps] == ["power=1", "power=2"]
    alone = preview(run({"power": "1"}))
    assert [label_of(one, alone) for one in alone.ramps] == ["poly to 90 %"]


def cautions(*runs: Any, is_sweep: bool = True) -> tuple[list[str], list[str]]:
    shown = preview(*runs, is_sweep=is_sweep)
    caution(shown)
    return shown.warnings, shown.hints


SEEDS = "fewer than 3 seeds: differences may be chance; seed=1,2,3 makes three"
NO_DENSE = "no dense control to compare with: schedule=none is one"


def test_few_seeds_are_a_warning_in_a_sweep() -> None:
    dense = [run({}, seed) for seed in (1, 2, 3)]
    assert cautions(run({"power": "1"}), is_sweep=False) == ([], [])
    assert cautions(run({"power": "1"})) == ([f"each setting has {SEEDS}"], [NO_DENSE])
    assert cautions(*dense, run({"power": "1"}), run({"power": "1"}, 2)) == (
        [f"1 setting has {SEEDS}"],
        [],
    )
    assert cautions(*dense, *(run({"power": "1"}, seed) for seed in (1, 2, 3))) == ([], [])


def test_an_unknown_length_is_said_once() -> None:
    runs = [run({"power": text}, length=UNKNOWN) for text in ("1", "2")]
    assert cautions(*runs, is_sweep=False)[0] == [
        "whether the ramp ends inside the training cannot be checked: the length of the training "
        "is unknown"
    ]


def test_what_is_never_reached_or_late_is_named() -> None:
    short = TrainingLength(200, 55, 10)
    runs = [
        run({"power": "1"}, length=short, interval="epoch", total_iters=7),
        run({"power": "2"}, total_iters=550),
    ]
    # Half way: 3 epochs are finished, the last of 7 updates is at 6.
    assert cautions(*runs, is_sweep=False) == (
        ["power=1: the target sparsity is never reached: 45.0 % of 90 % when the training ends"],
        [
            "the target is reached in the last epoch (power=2): at most the last validation counts "
            "for the best checkpoint"
        ],
    )
