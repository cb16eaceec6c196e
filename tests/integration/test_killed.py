"""kill -9, over and over: the run that completes in the end is the one that was never killed."""

import random
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.processes import QUICK, checkpoints, record_in, runs, started, wait_for
from tests.helpers.same_runs import comparable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 600
LONG = [*QUICK, "trainer.max_epochs=8", "checkpoint.every_n_steps=1"]
KILLS = 3  # that hit after a checkpoint


def kill_until_done(work: Path, moments: random.Random) -> int:
    """Return how often the run was killed after a checkpoint."""
    kills = 0
    for _ in range(40):
        known = set(checkpoints(work))
        with started(work, *LONG) as process:
            if kills < KILLS:
                # Not before it has got further, or nothing would ever end.
                wait_for(process, lambda seen=known: set(checkpoints(work)) - seen, "checkpoint")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=moments.uniform(0, 0.15))
                process.kill()
            out, errors = process.communicate(timeout=180)
        assert "Traceback" not in errors
        if process.returncode == 0:
            assert out.startswith("goes on in ")
            return kills
        kills += bool(checkpoints(work))
    raise AssertionError("the run never ended")


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    work: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    with started(whole, *LONG) as process:
        process.communicate(timeout=180)
    assert kill_until_done(work, random.Random(1)) >= KILLS
    (root,), (expected,) = runs(work), runs(whole)
    record = record_in(root)
    assert record["status"] == "completed"
    assert record["training"]["steps"] == STEPS
    assert record["attempts"] > KILLS
    assert len(record["resumed_at"]) >= KILLS
    assert record["resumed_at"] == sorted(record["resumed_at"])
    assert comparable(root) == comparable(expected)
    assert not (root / "resume").exists()


PROGRAM = """
import os, runpy, signal, sys
from lightning_callbacks._resume import checkpoint_files as files
flush, left = files._flush, [{flushes}]
def flush_or_die(path):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)
files._flush = flush_or_die
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.parametrize(("flushes", "step"), [(1, None), (5, 2), (6, 3)])
def test_a_run_that_is_killed_while_it_writes_goes_on_from_the_last_whole_file(
    work: Path, flushes: int, step: int | None
) -> None:
    # Each file is flushed when it is written beside its place, and its folder when it is renamed.
    program = work / "program.py"
    program.write_text(PROGRAM.format(script=str(ROOT / "train.py"), flushes=flushes))
    given = [*QUICK, "checkpoint.every_n_steps=1"]
    with started(work, *given, program=program) as process:
        process.communicate(timeout=180)
    assert process.returncode == -9
    assert bool(list(work.glob("outputs/*/*/resume/.step-*"))) == (flushes % 2 == 1)
    with started(work, *given) as process:
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    (root,) = runs(work)[:1]
    assert ("goes on in " in out) == (step is not None)
    if step is not None:
        assert record_in(root)["resumed_at"] == [step]
