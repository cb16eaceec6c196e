"""A sweep of any app whose processes are killed at random ends as one that nobody disturbed."""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from coreai_opt.runs.processes import process_exists
from tests.helpers.launchers import Chosen, chosen, needed
from tests.helpers.processes import Process, wait_for
from tests.helpers.subjects import LOOP, Json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# The learning rate -1 is refused by the optimizer.
POINTS = ["lr=0.1,0.05,-1", "seed=1,2", "epochs=8", "pause_s=0.1"]
COMPLETED, FAILED = 4, 2
DISTURBED, LEAST = 6, 2  # commands that are; workers go on when theirs is killed
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def at_work(work: Path) -> list[int]:
    """Return the processes of the runs that are not at their end."""
    found = []
    for run in LOOP.folders(work).values():
        with suppress(OSError, ValueError):
            record = json.loads((run / ".coreai" / "result.json").read_text())
            if record["status"] == "running":
                found.append(int(LOOP.progress(run)["pid"]))
    return found


def disturb(process: Process, work: Path, moments: random.Random) -> int:
    """Send a signal to the command or to one of its workers; return whether it was alive."""
    known = set(work.glob("multirun/*/*/state-*.pt"))
    is_early = moments.random() < 0.25  # before it has got further
    deadline = time.monotonic() + 60
    while not is_early and process.poll() is None and time.monotonic() < deadline:
        if set(work.glob("multirun/*/*/state-*.pt")) - known:
            break
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=moments.uniform(0, 3 if is_early else 0.6))
    workers = [pid for pid in at_work(work) if pid != process.pid]
    is_worker = bool(workers) and moments.random() < 0.6
    victim = moments.choice(workers) if is_worker else process.pid
    if process.poll() is not None:
        return 0
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL if is_worker else moments.choice(SIGNALS))
        return 1
    return 0


def run_until_done(work: Path, launcher: Chosen, moments: random.Random) -> int:
    """Return how often the sweep was disturbed."""
    hits = 0
    for _ in range(3 * DISTURBED):
        with LOOP.started(work, launcher, *POINTS) as process:
            if hits < DISTURBED:
                hits += disturb(process, work, moments)
            out, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        if f": 6 runs, {COMPLETED} completed, {FAILED} failed\n" in out:
            return hits
    raise AssertionError(f"the sweep never ended: {LOOP.states(work)}")


def outcomes(work: Path) -> dict[str, Json]:
    """Return what runs came to, without what tells when and in how many attempts."""
    names = ("status", "overrides", "config_hash", "seed", "objective", "metrics", "values")
    return {
        name: {
            **{key: record[key] for key in names},
            "error": (record["error"] or {}).get("message"),
            "folder": LOOP.folders(work)[name].name,
        }
        for name, record in LOOP.records(work).items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    work = LOOP.placed(tmp_path_factory.mktemp("whole"))
    assert LOOP.sweep(work, chosen("basic"), *POINTS).returncode == 2
    return outcomes(work)


@pytest.mark.parametrize("name", ["basic", "joblib"])
def test_what_is_killed_again_and_again_ends_as_what_was_not(
    work: Path, name: str, whole: dict[str, Json]
) -> None:
    needed(name)
    there = LOOP.placed(work)
    assert run_until_done(there, chosen(name), random.Random(name)) >= LEAST
    assert outcomes(there) == whole
    records = list(LOOP.records(there).values())
    completed = [record for record in records if record["status"] == "completed"]
    assert len(completed) == COMPLETED
    if name == "basic":
        assert any(record["resumed_at"] for record in completed)
    # What begins anew finds an empty place, and what goes on has all of its files.
    for run in LOOP.folders(there).values():
        (last,) = [path.name for path in run.glob("state-8.pt")] or [""]
        assert bool(last) == ("lr--1" not in run.name)
    (sweep,) = there.glob("multirun/*")
    left = {path.name for path in sweep.iterdir()} - {one["folder"] for one in whole.values()}
    assert left <= {"sweep.json", ".sweep.lock", "multirun.yaml"}


def test_workers_of_a_command_that_is_killed_end_their_runs_and_leave(work: Path) -> None:
    needed("joblib")
    there = LOOP.placed(work)
    with LOOP.started(there, chosen("joblib"), *POINTS) as process:
        wait_for(process, lambda: len(at_work(there)) == 2, "two runs")
        workers = at_work(there)
        process.kill()
        deadline = time.monotonic() + 30
        while (left := [*filter(process_exists, workers)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)  # they hold what the command would have written to
        assert not left
    # What stood in their queue is not begun.
    assert set(LOOP.states(there).values()) == {("completed", 1)}
    assert len(LOOP.states(there)) == 2
