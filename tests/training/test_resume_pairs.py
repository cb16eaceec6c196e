"""Every pair of options, stopped anywhere: the result is that of the run that never stopped."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from allpairspy import AllPairs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.quick_runs import QUICK
from tests.helpers.stopping import assert_same, left_by, run_in, run_until_done

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_picture")]

BATCHES = 18
OPTIONS: dict[str, list[Any]] = {
    "schedule": [
        "poly",
        "linear",
        "cubic",
        "cosine",
        "exponential",
        "multistep",
        "constant",
        "none",
    ],
    "pruning": ["magnitude", "channel", "n_m", "block"],
    "allocation": ["uniform", "erdos_renyi", "global"],
    "criterion": ["default", "taylor", "random"],
    "interval": ["step", "epoch", "percent"],
    "update_frequency": [1, 3],
    "trainer.accumulate_grad_batches": [1, 3],
    "optimizer": ["sgd", "adamw"],
    "allow_regrowth": ["true", "false"],
    "optimizer.lr_schedule": ["null", ""],
    "checkpoint.every_n_steps": ["null", 1, 4],
    "data.num_workers": [0, 2],
}
# Begin and length of a ramp, in intervals; three batches a step leave six steps.
RAMPS = {"step": (1, 4), "epoch": (0, 2), "percent": (10, 60)}
MILESTONES = {"step": "[2,4]", "epoch": "[1,2]", "percent": "[10,60]"}


def pairs() -> Iterator[Any]:
    for row in AllPairs(list(OPTIONS.values()), filter_func=is_possible):
        yield pytest.param(dict(zip(OPTIONS, row, strict=True)), id="-".join(map(str, row)))


def is_possible(row: list[Any]) -> bool:
    """Whether the options go together; asked of the first few of a row as well."""
    known = dict(zip(OPTIONS, row, strict=False))
    pruning, allocation = known.get("pruning"), known.get("allocation")
    # One threshold needs single weights, and the sparsity of n:m is fixed.
    return not (pruning in ("channel", "block", "n_m") and allocation == "global") and not (
        pruning == "n_m" and allocation == "erdos_renyi"
    )


def overrides_of(point: dict[str, Any]) -> list[str]:
    point = {key: value for key, value in point.items() if value != ""}
    schedule, interval = point["schedule"], point["interval"]
    frequency = point.pop("update_frequency")
    begin, length = RAMPS[interval]
    if schedule == "multistep":
        point |= {"milestones": MILESTONES[interval], "levels": "[0.5,1.0]"}
    elif schedule == "constant":
        point |= {"begin_step": begin}
    elif schedule != "none":
        point |= {"begin_step": begin, "total_iters": length, "update_frequency": frequency}
    point["target_sparsity"] = 0.5
    return [f"{key}={value}" for key, value in point.items()]


@pytest.mark.parametrize("point", list(pairs()))
@pytest.mark.filterwarnings("ignore:not every layer can be pruned exactly")
def test_a_run_that_is_stopped_anywhere_ends_as_one_that_was_not(
    compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: dict[str, Any]
) -> None:
    monkeypatch.setattr("coreai_opt.training.summary.show_result", lambda *_, **__: None)
    base = [item for item in QUICK if not item.startswith("total_iters")]
    command = [*base, *overrides_of(point)]
    run_in(compose_config, tmp_path / "whole", *command)
    whole, numbers = left_by(tmp_path / "whole"), count()

    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=2,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sets(st.integers(1, BATCHES), min_size=1, max_size=3))
    def check(stops: set[int]) -> None:
        directory = tmp_path / f"cut{next(numbers)}"
        run_until_done(lambda: run_in(compose_config, directory, *command), sorted(stops))
        assert_same(left_by(directory), whole)

    check()
