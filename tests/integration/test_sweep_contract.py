"""What every launcher has to do, by one suite: skip, retry, fail in isolation, go on, report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report.__main__ import main as report
from tests.conftest import ROOT
from tests.helpers.launchers import LAUNCHERS, MINE, NOTE, Chosen, chosen, needed, one_thread
from tests.helpers.processes import Process, facts, folders, progress_of, record_in, started

SHORT = ["experiment=quick", "trainer=cpu", "trainer.max_epochs=2", "total_iters=30", "warmup=off"]
LONG = ["experiment=quick", "trainer=cpu", "trainer.max_epochs=15", "total_iters=60", "warmup=off"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> Chosen:
    needed(request.param)
    return chosen(request.param, request)


def sweep(work: Path, launcher: Chosen, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *launcher.overrides, *arguments],
        cwd=work,
        env=one_thread(launcher.environment),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_bad_runs_cost_themselves_alone_and_what_is_done_is_skipped(
    work: Path, launcher: Chosen, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "mine.py").write_text(MINE)
    rates = ["optimizer.lr=0.1,1e9,-1", *SHORT, NOTE]
    done = sweep(work, launcher, *rates)
    good, hot, refused = "optimizer.lr-0.1", "optimizer.lr-1000000000.0", "optimizer.lr--1"
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert facts(work) == {good: ("completed", 1), hot: ("failed", 1), refused: ("failed", 1)}
    assert ": 3 runs, 1 completed, 2 failed\n" in done.stdout
    causes = {name: record_in(folders(work)[name])["error"]["type"] for name in (hot, refused)}
    assert causes == {hot: "DivergedWeightError", refused: "ConfigError"}
    # Computed with the same number of threads everywhere: the same numbers come out.
    record = record_in(folders(work)[good])
    note = json.loads((folders(work)[good] / "note.json").read_text())
    assert (note["threads"], record["threads"]) == (1, 1)
    assert record["metrics"]["test/accuracy"] == pytest.approx(0.9547, abs=5e-5)

    before = (folders(work)[good] / "result.json").read_bytes()
    again = sweep(work, launcher, *rates)
    assert again.returncode == 2, again.stderr
    assert ": 3 runs, 1 done before, 2 to run again after a failure\n" in again.stdout
    # What is refused before it begins keeps its first record.
    assert facts(work) == {good: ("completed", 1), hot: ("failed", 2), refused: ("failed", 1)}
    assert (folders(work)[good] / "result.json").read_bytes() == before

    report([str(work / "multirun"), "--no-figures"])
    assert "3 runs: 1 completed, 2 failed" in capsys.readouterr().out


def test_a_config_that_comes_out_otherwise_in_the_job_is_trained_once(
    work: Path, launcher: Chosen
) -> None:
    # Only the job has the variable.
    probe = "+probe.where=${oc.env:COREAI_OPT_SWEEP,planner}"
    again = None
    for attempt in ("first", "again"):
        done = sweep(work, launcher, "seed=1,2", *SHORT, probe)
        assert done.returncode == 0, (attempt, done.stdout, done.stderr)
        assert done.stdout.count("is not the run that was planned") == 2
        assert "probe.where: planner -> {" in done.stdout
        records = [record_in(folder) for folder in folders(work).values()]
        assert [record["attempts"] for record in records] == [1, 1]
        assert again in (None, [record["finished"] for record in records])
        again = [record["finished"] for record in records]


def has_checkpoint(work: Path, seed: int) -> bool:
    return bool(list(work.glob(f"multirun/*/seed-{seed}_*/resume/step-*.ckpt")))


def kill_the_process_of(process: Process, work: Path, seed: int) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if has_checkpoint(work, seed) and progress_of(work, seed).get("step", 0) > 0:
            os.kill(progress_of(work, seed)["pid"], signal.SIGKILL)
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"seed {seed} never began: {process.communicate()}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The metrics of the runs when nobody disturbs them."""
    work = tmp_path_factory.mktemp("whole")
    done = sweep(work, chosen("basic"), *LONG, "seed=1,2")
    assert done.returncode == 0, done.stderr
    return {name: record_in(path)["metrics"] for name, path in folders(work).items()}


def test_a_process_that_is_killed_costs_only_its_run_which_goes_on(
    work: Path, launcher: Chosen, whole: dict[str, Any]
) -> None:
    given = ["-m", *launcher.overrides, *LONG, "seed=1,2"]
    environment = one_thread(launcher.environment)
    with started(work, *given, environment=environment) as process:
        kill_the_process_of(process, work, 1)
        out, errors = process.communicate(timeout=300)
    if launcher.is_the_command:
        assert process.returncode == -signal.SIGKILL
        done = sweep(work, launcher, *LONG, "seed=1,2")
        assert done.returncode == 0, done.stderr
    else:
        assert process.returncode == 0, (out, errors)
        assert ": 2 runs, 2 completed\n" in out
    assert facts(work)["seed-1"] == ("completed", 2)
    assert record_in(folders(work)["seed-1"])["resumed_at"]
    assert {name: record_in(path)["metrics"] for name, path in folders(work).items()} == whole
