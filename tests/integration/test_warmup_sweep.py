"""Real sweeps whose jobs share their dense warm-up end as those that share nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.helpers.launchers import chosen, needed
from tests.helpers.same_runs import differences, record_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SWEEP = [
    "-m",
    "experiment=quick",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "logger=tensorboard",
    "begin_step=100",
    "total_iters=20,40",
]
TWO = [*SWEEP, "target_sparsity=0.5"]

# A callback of the user's own that ends a warm-up at its step 60.
MINE = """
import os
import signal
from pathlib import Path

import pytorch_lightning as pl


class Trouble(pl.Callback):
    def __init__(self, kind):
        self.kind = kind

    def on_train_batch_start(self, trainer, *args):
        is_warmup = Path(trainer.default_root_dir).name.startswith("warmup-")
        if not is_warmup or trainer.global_step != 60:
            return
        if self.kind == "interrupted" and not Path("interrupted").exists():
            Path("interrupted").touch()
            os.kill(os.getpid(), signal.SIGINT)
        if self.kind == "fails":
            raise ZeroDivisionError("in the warm-up")
        if self.kind == "killed" and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
TROUBLE = "+callbacks.trouble={_target_:mine.Trouble,kind:%s}"


def jobs(sweep: Path) -> list[Path]:
    found = sorted(path.parent for path in sweep.glob("*/result.json"))
    return [path for path in found if not path.name.startswith("warmup-")]


def warmup_in(sweep: Path) -> Path:
    (path,) = sweep.glob("warmup-*")
    return path


def shared_steps(sweep: Path) -> list[Any]:
    return [(record_of(path)["warmup"] or {}).get("steps") for path in jobs(sweep)]


def assert_as_without(sweep: Path, without: Path) -> None:
    assert [path.name for path in jobs(sweep)] == [path.name for path in jobs(without)] != []
    for one, other in zip(jobs(sweep), jobs(without), strict=True):
        assert differences(one, other) == []


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_sweep_ends_as_one_that_shares_nothing(
    command: Command, work: Path, launcher: str
) -> None:
    needed(launcher)
    # A dense control waits for no warm-up.
    given = [*SWEEP, *chosen(launcher).overrides, "schedule=poly,none"]
    shared = command(*given, "hydra.sweep.dir=shared", timeout=400)
    assert (shared.returncode, shared.stderr) == (0, "")
    assert "3 runs, 3 to run, after 1 dense warm-up that they share" in shared.stdout
    assert shared.stdout.count("dense warm-up completed: 100 steps, ") == 1
    assert "3 runs, 3 completed" in shared.stdout
    alone = command(*given, "hydra.sweep.dir=alone", "trunk=off", timeout=400)
    assert (alone.returncode, alone.stderr) == (0, "")
    assert_as_without(work / "shared", work / "alone")
    assert sorted(map(str, shared_steps(work / "shared"))) == ["100", "100", "None"]
    assert shared_steps(work / "alone") == [None] * 3
    assert not list((work / "alone").glob("warmup-*"))


def test_jobs_of_joblib_start_when_nothing_but_their_warm_up_was_at_work(
    command: Command, work: Path
) -> None:
    needed("joblib")
    done = command(*TWO, *chosen("joblib").overrides, "hydra.sweep.dir=x", timeout=400)
    assert (done.returncode, done.stderr) == (0, "")
    assert shared_steps(work / "x") == [100, 100]
    assert [record_of(path)["attempts"] for path in jobs(work / "x")] == [1, 1]


def test_a_warm_up_of_no_use_is_trained_again_by_the_next_command(
    command: Command, work: Path
) -> None:
    own, sweep = work / "mine.py", work / "x"
    own.write_text(MINE)

    def run(ramps: str, *told: str) -> str:
        given = [*SWEEP[:-1], TROUBLE % "fails", "sweep_name=x", "hydra.sweep.dir=x"]
        done = command(*given, f"total_iters={ramps}", timeout=400)
        assert (done.returncode, done.stderr) == (0, "")
        assert [text for text in told if text not in done.stdout] == []
        return done.stdout

    failed = run("20,40", "ZeroDivisionError: in the warm-up; each of its runs trains its own")
    assert failed.count("is not used: it has failed; this run trains its own") == 2
    name = warmup_in(sweep).name
    own.write_text(MINE.replace('raise ZeroDivisionError("in the warm-up")', "return"))
    run("25,35", f"{name} is trained again: its code has changed: ")
    assert shared_steps(sweep).count(100) == 2
    run("26", f"1 run starts from the dense warm-up in {name}")
    (file,) = (warmup_in(sweep) / "resume").iterdir()
    file.write_bytes(b"damaged")
    run("21,22", f"{name} is trained again: its checkpoint cannot be read")
    assert shared_steps(sweep).count(100) == 5
    assert len(list(warmup_in(sweep).glob("attempt-*"))) == 2


def test_ctrl_c_in_a_warm_up_leaves_its_jobs_to_the_same_command(
    command: Command, work: Path
) -> None:
    (work / "mine.py").write_text(MINE)
    given = [*TWO, TROUBLE % "interrupted", "hydra.sweep.dir=x"]
    stopped = command(*given, timeout=400)
    assert stopped.returncode == 2
    assert "; its runs are not begun, and the same command goes on" in stopped.stdout
    assert "2 runs, 2 not begun" in stopped.stdout
    assert jobs(work / "x") == []
    again = command(*given, timeout=400)
    assert (again.returncode, again.stderr) == (0, "")
    assert shared_steps(work / "x") == [100, 100]
    (step,) = record_of(warmup_in(work / "x"))["resumed_at"]
    assert 60 <= step <= 61


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_warm_up_that_is_killed_goes_on(command: Command, work: Path, launcher: str) -> None:
    needed(launcher)
    (work / "mine.py").write_text(MINE)
    given = [*TWO, TROUBLE % "killed", "checkpoint.every_n_steps=25", *chosen(launcher).overrides]
    done = command(*given, "hydra.sweep.dir=shared", timeout=400)
    if launcher == "basic":  # the process of the sweep itself
        assert done.returncode == -9
        done = command(*given, "hydra.sweep.dir=shared", timeout=400)
    assert done.returncode == 0, done.stderr
    record = record_of(warmup_in(work / "shared"))
    assert (record["attempts"], record["resumed_at"]) == (2, [50])
    alone = command(*given, "hydra.sweep.dir=alone", "warmup=off", timeout=400)
    assert alone.returncode == 0, alone.stderr
    assert_as_without(work / "shared", work / "alone")
    assert shared_steps(work / "shared") == [100, 100]


def test_trainings_of_two_processes_share(command: Command, work: Path) -> None:
    two = ["trainer=ddp", "trainer.max_epochs=6", "begin_step=80"]
    given = [
        *(item for item in TWO if item not in ("trainer.max_epochs=3", "begin_step=100")),
        *two,
    ]
    shared = command(*given, "hydra.sweep.dir=shared", timeout=400)
    assert shared.returncode == 0, shared.stderr
    alone = command(*given, "hydra.sweep.dir=alone", "warmup=off", timeout=400)
    assert alone.returncode == 0, alone.stderr
    assert shared_steps(work / "shared") == [80, 80]
    assert_as_without(work / "shared", work / "alone")
