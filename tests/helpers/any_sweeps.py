"""Sweeps of the apps without Lightning in tests/apps, run as their users do."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coreai_opt.runs.existing_run import ExistingRun, read_json
from tests.conftest import ROOT

GRID = "hydra/sweeper=grid"


@dataclass(frozen=True)
class Swept:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """What is said last of the sweep."""
        found: str = re.findall(r"^sweep .*: (.*)$", self.out, re.MULTILINE)[-1]
        return found

    @property
    def first(self) -> str:
        """What is said first of the sweep."""
        found: str = re.findall(r"^sweep .*: (.*)$", self.out, re.MULTILINE)[0]
        return found

    @property
    def called(self) -> list[str]:
        """What the plain app has been called with."""
        return re.findall(r"^CALLED (.*)$", self.out, re.MULTILINE)


@dataclass(frozen=True)
class AnyApp:
    """An app in a folder of its own.

    Attributes:
        folder: where it is.
        program: how it is started there.
    """

    folder: Path
    program: tuple[str, ...]

    def command(self, *words: str, sweeper: str = GRID) -> list[str]:
        """Return the command of a sweep."""
        flags = [word for word in words if word.startswith("-")]
        typed = [word for word in words if word not in flags]
        return [sys.executable, *self.program, "-m", *flags, sweeper, *typed]

    def sweep(self, *words: str, sweeper: str = GRID, **variables: str) -> Swept:
        """Run a sweep."""
        return self._done(self.command(*words, sweeper=sweeper), **variables)

    def run(self, *words: str, **variables: str) -> Swept:
        """Run the app with these words alone."""
        return self._done([sys.executable, *self.program, *words], **variables)

    def _done(self, command: list[str], **variables: str) -> Swept:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=180,
        )
        return Swept(done.returncode, done.stdout, done.stderr)

    @property
    def runs(self) -> dict[str, Path]:
        """The directories of runs by their names without the hash."""
        found = sorted(path.parents[1] for path in self.folder.glob("**/.coreai/result.json"))
        runs = [path for path in found if not path.name.startswith("attempt-")]
        return {path.name.rpartition("_")[0] or path.name: path for path in runs}

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """The records of runs by the same names."""
        return {name: record_of(path) for name, path in self.runs.items()}

    @property
    def states(self) -> dict[str, tuple[str, int]]:
        """Status and attempts of runs."""
        return {name: (one["status"], one["attempts"]) for name, one in self.records.items()}


def record_of(run: Path) -> dict[str, Any]:
    found = read_json(run / ".coreai" / "result.json")
    assert found is not None, run
    assert ExistingRun.at(run) is not None
    return found


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**clean, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}


PROGRAMS = {"plain": "app.py", "loop": "train.py", "own_files": "run.py"}


def copied(name: str, folder: Path, program: Sequence[str] = ()) -> AnyApp:
    """Copy an app into a folder with a space in its name."""
    where = folder / "an app" / name
    shutil.copytree(ROOT / "tests" / "apps" / name, where)
    return AnyApp(where, tuple(program) or (PROGRAMS[name],))


def written(folder: Path, program: str, **files: str) -> AnyApp:
    """Write an app, and config files by path: ``conf__model__big``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(program)
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return AnyApp(folder, ("app.py",))
