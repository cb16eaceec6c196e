"""Real runs, as processes that can be sent signals, and what they leave."""

import functools
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

QUICK = ["experiment=quick", "trainer.accelerator=cpu", "trainer.log_every_n_steps=5"]

Process = subprocess.Popen[str]


@contextmanager
def started(
    work: Path,
    *arguments: str,
    program: Path = ROOT / "train.py",
    environment: dict[str, str] | None = None,
) -> Iterator[Process]:
    """Start ``python train.py ARGUMENTS``; what is left of it at the end is killed."""
    process = subprocess.Popen(
        [sys.executable, str(program), *arguments],
        cwd=work,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell ignores Ctrl-C, and so do its children, unless told.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_ranks(folder: Path, program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a program whose Trainer starts its ranks, in a folder; it must succeed."""
    path = folder / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done


def wait_for(process: Process, condition: Callable[[], object], what: str) -> None:
    """Wait until something is there; a process that has ended before is a failure."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"no {what} came; exit code {process.poll()}: {process.communicate()}")


def runs(work: Path) -> list[Path]:
    """Return the directories of single runs, the oldest first."""
    return sorted(path.parent for path in work.glob("outputs/*/*/result.json"))


def record_in(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((root / "result.json").read_text())
    return record


def folders(work: Path) -> dict[str, Path]:
    """Return the folders of the runs of a sweep by what varies."""
    found = sorted(path.parent for path in work.glob("multirun/*/*/result.json"))
    return {path.name.rpartition("_")[0]: path for path in found}


def facts(work: Path) -> dict[str, tuple[str, int]]:
    """Return how the runs of a sweep stand, and in how many attempts, by what varies."""
    records = {name: record_in(path) for name, path in folders(work).items()}
    return {name: (one["status"], one["attempts"]) for name, one in records.items()}


def progress_of(work: Path, seed: int) -> dict[str, Any]:
    """Return the sign of life of the run of a seed in a sweep, nothing before there is one."""
    for path in work.glob(f"multirun/*/seed-{seed}_*/progress.json"):
        return dict(json.loads(path.read_text()))
    return {}


def checkpoints(work: Path) -> list[Path]:
    """Return the files that a run below a directory can go on from, the newest first."""
    return sorted(work.glob("outputs/*/*/resume/step-*.ckpt"), reverse=True)


def in_terminal(command: list[str], cwd: Path, given: dict[str, str] | None = None) -> str:
    """Return what a command writes to a terminal of 160 columns."""
    leader, follower = pty.openpty()
    shown = {"COLUMNS": "160", "TERM": "xterm", "NO_COLOR": "1"}
    environment = {**(given or os.environ), **shown}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    written = b""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 1)
        try:
            part = os.read(leader, 65536) if ready else b""
        except OSError:  # Linux's way to say that the other end is closed
            break
        written += part
        if not part and process.poll() is not None:
            break
    os.close(leader)
    assert process.wait(timeout=10) == 0, written.decode(errors="replace")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode(errors="replace"))
