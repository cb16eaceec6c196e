"""Shared warm-ups under SLURM: jobs of their own, which are requeued and killed as any other."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.launchers import one_thread
from tests.helpers.processes import Process, record_in, started, wait_for
from tests.helpers.same_runs import differences
from tests.helpers.slurm import IDLE, Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

SLURM = [
    "-m",
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
    "experiment=quick",
    "total_iters=20,40",
]

# A dense control waits for no warm-up.
SWEEP = [
    *SLURM,
    "trainer=cpu",
    "trainer.max_epochs=12",
    "begin_step=450",
    "schedule=poly,none",
    "+callbacks.idle._target_=idle.Idle",
]

# The nodes of this cluster have names that lead nowhere.
TWO_TASKS = [
    *SLURM,
    "hydra.launcher.tasks_per_node=2",
    'hydra.launcher.setup=["export MASTER_ADDR=127.0.0.1"]',
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=6",
    "begin_step=80",
]


def jobs(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return the records of the jobs by their folders, without warm-up runs."""
    folders = sorted(path.parent for path in sweep.glob("*/result.json"))
    return {one.name: record_in(one) for one in folders if not one.name.startswith("warmup-")}


def warmup_in(sweep: Path) -> Path:
    (path,) = sweep.glob("warmup-*")
    return path


def trains(sweep: Path) -> bool:
    """Whether the warm-up run is at work and has a checkpoint to go on from."""
    return bool(list(sweep.glob("warmup-*/resume/step-*.ckpt")))


def when(record: dict[str, Any], what: str) -> datetime:
    return datetime.fromisoformat(record[what])


@contextmanager
def sweeping(cluster: Slurm, work: Path, *given: str) -> Iterator[Process]:
    (work / "idle.py").write_text(IDLE)
    environment = one_thread(cluster.environment)
    with started(work, *given, "hydra.sweep.dir=sweep", environment=environment) as process:
        yield process


def ended(process: Process) -> str:
    """Return what a command prints that succeeds."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    return out


def assert_as_without(sweep: Path, alone: Path) -> None:
    assert list(jobs(sweep)) == list(jobs(alone)) != []
    for name, record in jobs(sweep).items():
        assert differences(sweep / name, alone / name) == []
        assert record["attempts"] == 1


@pytest.fixture(scope="module")
def alone(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that shares nothing."""
    work = tmp_path_factory.mktemp("alone")
    with sweeping(slurm, work, *SWEEP, "warmup=off") as process:
        ended(process)
    assert not list((work / "sweep").glob("warmup-*"))
    return work / "sweep"


@pytest.mark.parametrize("event", ["requeue", "kill"])
def test_jobs_start_when_their_warm_up_has_ended_whatever_happens_to_it(
    slurm: Slurm, alone: Path, tmp_path: Path, event: str
) -> None:
    sweep = tmp_path / "sweep"
    with sweeping(slurm, tmp_path, *SWEEP) as process:
        wait_for(process, lambda: trains(sweep), "checkpoint of the warm-up")
        folder = warmup_in(sweep)
        if event == "requeue":
            slurm.run("scontrol", "requeue", json.loads((folder / "job.json").read_text())["id"])
        else:
            os.kill(json.loads((folder / "progress.json").read_text())["pid"], signal.SIGKILL)
        told = ended(process)
    assert "3 runs, 3 to run, after 1 dense warm-up that they share" in told
    assert "3 runs, 3 completed" in told
    warmup = record_in(folder)
    assert (warmup["status"], warmup["attempts"]) == ("completed", 2)
    assert warmup["resumed_at"][0] > 0
    assert_as_without(sweep, alone)
    shared = [one for one in jobs(sweep).values() if one["warmup"] is not None]
    assert [one["warmup"]["steps"] for one in shared] == [450, 450]
    assert all(when(one, "started") >= when(warmup, "finished") for one in shared)
    (control,) = (one for one in jobs(sweep).values() if one["warmup"] is None)
    assert when(control, "started") < when(warmup, "finished")


def test_a_command_that_ends_during_a_warm_up_says_that_its_runs_are_not_submitted(
    slurm: Slurm, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    with sweeping(slurm, tmp_path, *SWEEP) as process:
        wait_for(process, lambda: trains(sweep), "a warm-up that trains")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    assert "2 runs wait for the dense warm-up, not submitted yet: run the same command again" in out
    with sweeping(slurm, tmp_path, *SWEEP) as process:
        ended(process)
    assert {record["status"] for record in jobs(sweep).values()} == {"completed"}
    assert len(jobs(sweep)) == 3
    assert record_in(warmup_in(sweep))["attempts"] == 1


def test_runs_in_two_tasks_start_from_one_warm_up(slurm: Slurm, tmp_path: Path) -> None:
    for name, more in (("shared", []), ("alone", ["warmup=off"])):
        work = tmp_path / name
        work.mkdir()
        with sweeping(slurm, work, *TWO_TASKS, *more) as process:
            ended(process)
    sweep = tmp_path / "shared" / "sweep"
    assert [(one["warmup"] or {}).get("steps") for one in jobs(sweep).values()] == [80, 80]
    assert_as_without(sweep, tmp_path / "alone" / "sweep")
