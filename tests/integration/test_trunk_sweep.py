"""Real sweeps whose jobs share their dense warm-up, in one process and in two side by side."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Command
from tests.helpers.same_runs import differences, record_of

SWEEP = [
    "-m",
    "experiment=quick",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "logger=tensorboard",
    "begin_step=100",
    "total_iters=20,40",
    "target_sparsity=0.5,0.9",
]


def jobs(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("*/result.json"))


def trunks(sweep: Path) -> list[dict[str, Any] | None]:
    records = sorted(map(record_of, jobs(sweep)), key=lambda record: str(record["started"]))
    return [record["trunk"] for record in records]


def assert_as_without(sweep: Path, without: Path) -> None:
    assert len(jobs(sweep)) == len(jobs(without)) == 4
    for one, other in zip(jobs(sweep), jobs(without), strict=True):
        assert differences(one, other) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_ends_as_one_that_shares_nothing(command: Command, work: Path) -> None:
    shared = command(*SWEEP, "hydra.sweep.dir=shared", timeout=250)
    assert (shared.returncode, shared.stderr) == (0, "")
    alone = command(*SWEEP, "hydra.sweep.dir=alone", "trunk=off", timeout=250)
    assert (alone.returncode, alone.stderr) == (0, "")
    assert_as_without(work / "shared", work / "alone")
    found = trunks(work / "shared")
    assert all(trunk and trunk["steps"] == 100 for trunk in found)
    assert [bool(trunk and trunk["seconds_saved"]) for trunk in found] == [False, True, True, True]
    assert shared.stdout.count("dense warm-up: 100 steps from ") == 3
    assert trunks(work / "alone") == [None] * 4
    assert len(list((work / "multirun" / "trunks").iterdir())) == 1
    # Another sweep finds it there.
    again = command(*SWEEP[:-2], "total_iters=30,35", "hydra.sweep.dir=again", timeout=250)
    assert again.stdout.count("dense warm-up: 100 steps from ") == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_sweeps_side_by_side_make_one_warm_up(command: Command, work: Path) -> None:
    script = [sys.executable, str(ROOT / "train.py"), *SWEEP]
    started = [
        subprocess.Popen(
            [*script, f"hydra.sweep.dir={name}"],
            cwd=work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    try:
        ended = [process.communicate(timeout=250) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], ended
    found = [*trunks(work / "one"), *trunks(work / "two")]
    assert len({trunk["id"] for trunk in found if trunk}) == 1
    assert [bool(trunk and trunk["seconds_saved"]) for trunk in found].count(False) == 1
    alone = command(*SWEEP, "hydra.sweep.dir=alone", "trunk=off", timeout=250)
    assert alone.returncode == 0, alone.stderr
    assert_as_without(work / "one", work / "alone")
    assert_as_without(work / "two", work / "alone")
