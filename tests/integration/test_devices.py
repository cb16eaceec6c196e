"""Runs of two processes on the command line: one record, exact going on, nobody left behind."""

import csv
import functools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.processes import QUICK, Process, checkpoints, record_in, runs, wait_for
from tests.helpers.same_runs import comparable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TWO = [*QUICK, "trainer=ddp"]
LONG = [*TWO, "trainer.max_epochs=8", "checkpoint.every_n_steps=10"]
STEPS = 8 * 38  # of an epoch; one process makes 75


@contextmanager
def group(work: Path, *arguments: str) -> Iterator[Process]:
    """Start a command in a group of its own; nothing of it may be left at the end."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=work,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
        deadline = time.monotonic() + 180
        while (left := members(process)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, f"left behind: {left}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def members(process: Process) -> list[int]:
    """Return the processes of a command that are alive."""
    listed = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True)
    rows = [line.split() for line in listed.stdout.splitlines()[1:]]
    return [int(pid) for pid, of, state in rows if int(of) == process.pid and state[0] != "Z"]


def finished(work: Path, *arguments: str) -> str:
    with group(work, *arguments) as process:
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody has stopped."""
    work = tmp_path_factory.mktemp("whole run")
    assert len(finished(work, *LONG).splitlines()) == 1
    return runs(work)[0]


def assert_once(root: Path) -> None:
    """Nothing was logged or counted by two processes."""
    losses = Counter(row["step"] for row in table(root / "metrics.csv") if row["train/loss"])
    layers = Counter((row["step"], row["layer"]) for row in table(root / "sparsity.csv"))
    assert len(losses) > 10
    assert len(layers) > 10
    assert set(losses.values()) == set(layers.values()) == {1}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_of_two_processes_is_one_run(whole: Path) -> None:
    record = record_in(whole)
    assert (record["status"], record["attempts"]) == ("completed", 1)
    assert record["training"]["steps"] == STEPS
    assert record["checkpoints"]["best"] == "checkpoints/best.ckpt"
    assert record["sparsity"]["achieved"] == pytest.approx(0.9, abs=1e-3)
    assert len(list(whole.parents[1].rglob("result.json"))) == 1
    assert_once(whole)


def test_a_run_whose_processes_torchrun_starts_is_one_run(work: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(ROOT / "train.py"), *TWO, "trainer.max_epochs=2", "total_iters=10"],
        cwd=work,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,  # a rank waits longer for one that says nothing
    )
    assert done.returncode == 0, done.stderr
    (root,) = runs(work)
    assert record_in(root)["status"] == "completed"
    assert_once(root)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_and_ends_as_one_that_was_not(
    work: Path, whole: Path, number: signal.Signals
) -> None:
    with group(work, *LONG) as process:
        wait_for(process, lambda: len(checkpoints(work)) > 1, "checkpoint")
        # A terminal sends Ctrl-C to all of them; SIGTERM is meant for the command.
        if number == signal.SIGTERM:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), errors
    assert "Traceback" not in errors
    assert errors.count("interrupted (the same command goes on") == (number != signal.SIGKILL)
    out = finished(work, *LONG)
    assert out.startswith("goes on in ")
    (root,) = runs(work)
    record = record_in(root)
    assert (record["status"], record["attempts"]) == ("completed", 2)
    assert comparable(root) == comparable(whole)
    assert_once(root)


def test_the_first_rank_takes_the_run_with_it(work: Path) -> None:
    with group(work, *LONG) as process:
        wait_for(process, lambda: checkpoints(work), "checkpoint")
        os.kill(process.pid, signal.SIGKILL)
    (root,) = runs(work)
    assert record_in(root)["status"] == "running"  # of a process that is gone: interrupted


def test_a_sweep_over_runs_of_two_processes(work: Path) -> None:
    (work / "mine" / "optimizer").mkdir(parents=True)
    (work / "mine" / "optimizer" / "slow.yaml").write_text("defaults: [sgd]\nlr: 0.01\n")
    own = ["--config-dir", str(work / "mine"), "optimizer=slow"]  # which all ranks are to find
    given = ["-m", *own, *TWO, "seed=1,2", "hydra.sweep.dir='my \"sweep\" a=b'"]
    out = finished(work, *given)
    assert ": 2 runs, 2 to run\n" in out
    sweep = work / 'my "sweep" a=b'
    roots = sorted(path.parent for path in work.rglob("result.json"))
    assert [root.parent for root in roots] == [sweep, sweep]
    for root in roots:
        record = record_in(root)
        assert (record["status"], record["attempts"]) == ("completed", 1)
        assert record["training"]["steps"] == STEPS / 2
        assert record["config"]["optimizer"]["lr"] == 0.01
        assert_once(root)
    before = [(root / "result.json").read_bytes() for root in roots]
    assert "2 done before" in finished(work, *given)
    assert [(root / "result.json").read_bytes() for root in roots] == before
    assert not (work / "outputs").exists()


def test_a_run_that_fails_or_is_stopped_takes_no_other_with_it(work: Path) -> None:
    (work / "failing.py").write_text(
        "import os, signal\n"
        "import pytorch_lightning as pl\n"
        "class Failing(pl.Callback):\n"
        "    def __init__(self, seed):\n"
        "        self.seed = seed\n"
        "    def on_train_batch_end(self, trainer, *args):\n"
        "        if trainer.global_step == 12 and trainer.global_rank == 1:\n"
        "            if self.seed == 1:\n"
        "                raise RuntimeError('on one rank alone')\n"
        "            if self.seed == 2:\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "        if trainer.global_step == 12 and trainer.global_rank == 0 and self.seed == 3:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
    )
    callback = ["+callbacks.failing._target_=failing.Failing", "+callbacks.failing.seed=${seed}"]
    with group(work, "-m", *TWO, *callback, "seed=1,2,3,4") as process:
        _, errors = process.communicate(timeout=250)
    assert process.returncode == 2, errors
    records = [record_in(path.parent) for path in work.rglob("result.json")]
    ended = {record["seed"]: record["status"] for record in records}
    assert ended == {1: "failed", 2: "failed", 3: "interrupted", 4: "completed"}
    errors_of = {record["seed"]: record["error"] for record in records}
    assert errors_of[1]["message"] == "rank 1 ended with exit code 2 before the run did"
    assert errors_of[2]["message"] == "rank 1 was ended by signal 9 before the run did"
    assert errors_of[2]["type"] == "RankLostError"
    assert "RuntimeError: on one rank alone" in errors


def test_workers_are_told_how_it_is_done(work: Path) -> None:
    with group(work, "-m", *TWO, "seed=1,2", "hydra/launcher=joblib") as process:
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert (
        "a worker of hydra/launcher=joblib cannot start the other ranks; allowed: the"
        in f"{out}{errors}"
    )
    assert not list(work.glob("multirun/*/seed-*"))
