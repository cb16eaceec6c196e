"""Real sweeps through the real command line: run again, killed, with a full disk, two at once."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.sweep.plan import Plan
from tests.conftest import ROOT, Command
from tests.helpers.launchers import needed
from tests.helpers.processes import (
    Process,
    facts,
    folders,
    in_terminal,
    progress_of,
    record_in,
    started,
    wait_for,
)

SHORT = ["experiment=quick", "trainer.max_epochs=2", "total_iters=30", "warmup=off"]
LONG = ["experiment=quick", "trainer.max_epochs=15", "total_iters=60", "warmup=off"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_runs_that_were_done_before_are_deployed_and_not_trained_again(
    command: Command, work: Path
) -> None:
    sweep = ["-m", *SHORT, "power=1,2"]
    assert command(*sweep, timeout=200).returncode == 0
    before = [(path / "weights.pt").stat().st_mtime_ns for path in folders(work).values()]
    again = command(*sweep, "deploy=[torch,sparse_cpu]", timeout=200)
    assert (again.returncode, again.stderr) == (0, "")
    assert [(path / "weights.pt").stat().st_mtime_ns for path in folders(work).values()] == before
    for path in folders(work).values():
        record = record_in(path)
        assert record["status"] == "completed"
        for target in ("torch", "sparse_cpu"):
            made = record["deploy"]["targets"][target]
            assert made["error"] is None
            assert made["largest_difference"] < 1e-4
            assert made["latency"].keys() == {"1", "32"}
            assert made["peak_bytes"] > 0
    third = command(*sweep, "deploy=[torch,sparse_cpu]")
    assert ": 2 runs, 2 done before\n" in third.stdout


def test_a_sweep_run_again_does_what_is_not_done(command: Command, work: Path) -> None:
    one = command("-m", *SHORT, "schedule=poly,constant", "power=1,2", timeout=200)
    assert (one.returncode, one.stderr) == (0, "")
    assert one.stdout.splitlines()[:2] == [
        "power does not count with schedule=constant",
        "1 point is the same as another one and not run twice",
    ]
    names = ["power-1_schedule-poly", "power-2_schedule-poly", "schedule-constant"]
    assert list(folders(work)) == names
    before = {name: (path / "result.json").read_bytes() for name, path in folders(work).items()}
    again = command("-m", *SHORT, "power=1,2", "schedule=poly,constant")
    assert (again.returncode, again.stderr) == (0, "")
    assert ": 3 runs, 3 done before\n" in again.stdout
    more = command("-m", *SHORT, "schedule=poly,constant", "power=2,3,1")
    assert (more.returncode, more.stderr) == (0, "")
    assert ": 4 runs, 3 done before, 1 to run\n" in more.stdout
    assert list(folders(work)) == [*names[:2], "power-3_schedule-poly", names[2]]
    for name, content in before.items():
        assert (folders(work)[name] / "result.json").read_bytes() == content
    assert {record_in(path)["sweep"] for path in folders(work).values()} == {
        next(work.glob("multirun/power-*")).name
    }


def test_a_failed_run_is_run_again_alone_by_the_command_that_is_told(
    command: Command, work: Path
) -> None:
    done = command("-m", *SHORT, "optimizer.lr=-1,0.1,1e9")
    assert (done.returncode, done.stderr) == (2, "")
    assert facts(work) == {
        "optimizer.lr--1": ("failed", 1),
        "optimizer.lr-0.1": ("completed", 1),
        "optimizer.lr-1000000000.0": ("failed", 1),
    }
    record = record_in(folders(work)["optimizer.lr--1"])
    assert "optimizer.lr=-1: should be greater than 0" in record["error"]["traceback"]
    record = record_in(folders(work)["optimizer.lr-1000000000.0"])
    assert record["error"]["type"] == "DivergedWeightError"
    commands = [line for line in done.stdout.splitlines() if line.startswith("  python train.py")]
    assert len(commands) == 2
    alone = command(*shlex.split(commands[1])[2:])
    assert alone.returncode == 2
    assert ": 1 run, 1 to run again after a failure\n" in alone.stdout
    assert facts(work)["optimizer.lr-1000000000.0"] == ("failed", 2)
    kept = command("-m", *SHORT, "optimizer.lr=1e9,0.1", "sweep.retry=none")
    assert kept.returncode == 2
    assert "1 failed before and not run again" in kept.stdout
    fast = command("-m", *SHORT, "optimizer.lr=-1,0.2", "sweep.fail_fast=true")
    assert fast.returncode == 2
    assert ": 2 runs, 1 failed, 1 not begun\n" in fast.stdout
    assert "optimizer.lr-0.2" not in folders(work)


def interrupted(process: Process, work: Path, seed: int) -> None:
    """Press Ctrl-C when the run of a seed has begun to train."""
    wait_for(process, lambda: progress_of(work, seed).get("step", 0) > 0, "step")
    process.send_signal(signal.SIGINT)


def test_ctrl_c_ends_one_run_and_the_second_one_the_sweep(work: Path) -> None:
    given = ["-m", *LONG, "seed=1,2,3"]
    with started(work, *given) as process:
        interrupted(process, work, 1)
        interrupted(process, work, 2)
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    assert "and the sweep goes on; Ctrl-C again ends the sweep" in errors
    assert ": 3 runs, 2 interrupted, 1 not run\n" in out
    assert facts(work) == {"seed-1": ("interrupted", 1), "seed-2": ("interrupted", 1)}
    with started(work, *given) as process:
        interrupted(process, work, 3)
        out, errors = process.communicate(timeout=200)
    assert process.returncode == 2, errors
    assert ": 3 runs, 1 to run, 2 to go on with\n" in out
    assert facts(work)["seed-1"] == ("completed", 2)
    assert facts(work)["seed-3"] == ("interrupted", 1)


def kill_workers(process: Process, work: Path, seed: int, kills: int) -> None:
    """Kill the process of a run as soon as it trains, so many times."""
    killed: set[int] = set()
    deadline = time.monotonic() + 200
    while len(killed) < kills and process.poll() is None and time.monotonic() < deadline:
        seen = progress_of(work, seed)
        is_new = seen.get("step", 0) > 0 and seen["pid"] not in {*killed, process.pid}
        paths = [path for name, path in folders(work).items() if name == f"seed-{seed}"]
        if is_new and paths and record_in(paths[0])["status"] == "running":
            killed.add(seen["pid"])
            os.kill(seen["pid"], signal.SIGKILL)
        time.sleep(0.05)
    assert len(killed) == kills, process.communicate()


JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def test_a_worker_that_is_killed_three_times_has_failed_alone(work: Path) -> None:
    needed("joblib")
    # A loss counts where the run has got no further: it writes no checkpoint before it is killed.
    never = ["checkpoint.every_n_epochs=null", "checkpoint.every_n_steps=null"]
    with started(work, "-m", *JOBLIB, *LONG, *never, "seed=1,2") as process:
        kill_workers(process, work, 1, kills=3)
        out, errors = process.communicate(timeout=250)
    assert process.returncode == 2, errors
    states = {name: status for name, (status, _) in facts(work).items()}
    assert states == {"seed-1": "failed", "seed-2": "completed"}
    record = record_in(folders(work)["seed-1"])
    assert (record["attempts"], record["error"]["type"]) == (3, "LostProcessError")
    assert "its process was lost 3 times; the launcher said: TerminatedWorkerError" in out
    assert not list(work.glob("multirun/*/.stop"))


def test_two_processes_share_a_sweep(work: Path) -> None:
    given = ["-m", *SHORT, "seed=1,2,3,4"]
    with started(work, *given) as one, started(work, *given) as other:
        ended = [process.communicate(timeout=300) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], ended
    assert set(facts(work).values()) == {("completed", 1)}
    assert len(folders(work)) == 4
    assert all(": 4 runs, 4 completed\n" in out for out, _ in ended)
    # Each has its own runs by process; together they have all.
    pids = {record_in(path)["run_id"].rpartition("-")[2] for path in folders(work).values()}
    assert pids == {str(one.pid), str(other.pid)}


@contextmanager
def little_space(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_one_run_is_that_runs_failure(
    work: Path, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    made = plan(*SHORT, "seed=1,2")
    with little_space(made.root / made.points[0].folder):
        with started(work, "-m", *SHORT, "seed=1,2") as process:
            out, errors = process.communicate(timeout=200)
        assert process.returncode == 2, (out, errors)
        assert "No space left on device" in out
        run = ExistingRun.at(made.root / made.points[0].folder)
        assert run is None or run.state != "completed"
    assert record_in(folders(work)["seed-2"])["status"] == "completed"
    with started(work, "-m", *SHORT, "seed=1,2") as process:
        out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, (out, errors)
    assert {status for status, _ in facts(work).values()} == {"completed"}


def test_a_terminal_shows_one_table_and_a_bar_for_the_run_at_work(work: Path) -> None:
    program = [sys.executable, str(ROOT / "train.py"), "-m", *LONG, "seed=1,2"]
    screen = in_terminal(program, work)
    assert re.search(r"1 of 2 │ 1 +│ 0 +│ 0 +│ \d+ s", screen)
    assert re.search(r"seed-1_[0-9a-f]{8} .*step \d+ of 1125", screen)
    assert "best so far" in screen
    assert re.search(r"\[2/2\] completed test/accuracy", screen)
    assert "train/loss" not in screen  # the bar of a single run would be in the way


def test_options_of_ones_own_are_found_by_sweeps_and_by_the_command_that_is_told(
    command: Command, work: Path
) -> None:
    (work / "mine" / "optimizer").mkdir(parents=True)
    option = "defaults:\n  - /schema/optimizer/sgd@_here_\n  - _self_\nlr: 1.0e+9\n"
    (work / "mine" / "optimizer" / "hot.yaml").write_text(option)
    flags = ["--config-dir", "mine"]
    done = command(*flags, "-m", *SHORT, "optimizer=sgd,hot", "hydra.job.chdir=true")
    assert (done.returncode, done.stderr) == (2, "")
    assert facts(work) == {"optimizer-hot": ("failed", 1), "optimizer-sgd": ("completed", 1)}
    told = next(line for line in done.stdout.splitlines() if line.startswith("  python train.py"))
    alone = command(*shlex.split(told)[2:])
    assert alone.returncode == 2
    assert ": 1 run, 1 to run again after a failure\n" in alone.stdout


def test_a_file_may_make_a_sweep_of_a_plain_command(command: Command, work: Path) -> None:
    (work / "experiment").mkdir()
    (work / "experiment" / "grid.yaml").write_text(
        "# @package _global_\n"
        "defaults: [override /data: digits]\n"
        "trainer: {max_epochs: 1}\n"
        "total_iters: 20\n"
        "hydra:\n"
        "  mode: MULTIRUN\n"
        "  sweeper: {params: {optimizer.lr: '0.1,-1'}}\n"
        "  sweep: {subdir: 'run_${hydra.job.num}'}\n"
    )
    typed = ["--config-dir=.", "experiment=grid", "hydra.sweep.subdir=n_${hydra.job.num}"]
    shown = command(*typed, "preview=true")
    assert ", 2 runs\n" in shown.stdout
    assert "hydra.sweep.subdir=n_${hydra.job.num} does not count" in shown.stdout
    done = command(*typed)
    assert done.returncode == 2, done.stderr
    assert "2 runs, 1 completed, 1 failed" in done.stdout
    again = done.stdout.splitlines()[-1]
    assert again.strip().startswith("python train.py --config-dir=. -m sweep_name=")
    [failed] = [path for path in work.glob("multirun/*/*/result.json") if "--1" in str(path)]
    assert record_in(failed.parent)["flags"] == [f"--config-dir={work}"]


def test_two_processes_run_a_failing_run_once(work: Path) -> None:
    given = ["-m", *LONG, "seed=1,2,3", "optimizer.lr=1e9"]
    with started(work, *given) as one, started(work, *given) as other:
        ended = [process.communicate(timeout=300) for process in (one, other)]
    assert [one.returncode, other.returncode] == [2, 2], ended
    assert set(facts(work).values()) == {("failed", 1)}
    assert all(": 3 runs, 3 failed\n" in out for out, _ in ended)
