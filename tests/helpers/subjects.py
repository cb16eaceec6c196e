"""The apps that the contract of launchers is tested with: our own, and two of somebody else's."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.helpers.launchers import MINE, NOTE, Chosen, one_thread
from tests.helpers.processes import Process, started

Json = dict[str, Any]


def _nothing(_run: Path, _record: Json) -> None:
    return


@dataclass(frozen=True, eq=False)
class Subject:
    """An app, with what a test of its sweeps must know.

    Attributes:
        name: its folder in tests/apps; ``train`` is our own app.
        short: what makes its training short.
        long: what makes it last until it can be killed after a checkpoint.
        knob: a key with a value that is good and others that are not.
        good: the good value.
        bad: type of the error that a run of each bad value ends with, by value.
        refused: bad values that are seen before a run begins: its record stays as it is.
        checkpoints: what can be gone on from once it is there, below a run's directory.
        inner: folder of the record in a run's directory.
        typed: what its sweeps are told besides.
        look: asserts what else is to be seen of a good run.
    """

    name: str
    short: tuple[str, ...]
    long: tuple[str, ...]
    knob: str
    good: str
    checkpoints: str
    bad: Mapping[str, str]
    refused: tuple[str, ...] = ()
    inner: str = ".coreai"
    typed: tuple[str, ...] = ()
    look: Callable[[Path, Json], None] = field(default=_nothing, repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def is_ours(self) -> bool:
        return not self.inner

    def placed(self, folder: Path) -> Path:
        """Make what its commands are typed in, and return that."""
        if self.is_ours:
            (folder / "mine.py").write_text(MINE)
            return folder
        app = ROOT / "tests" / "apps" / self.name
        return Path(shutil.copytree(app, folder / "their app"))

    def words(self, launcher: Chosen, *given: str) -> list[str]:
        """Return what is typed for a sweep."""
        if self.is_ours:
            return ["-m", *launcher.overrides, *given]
        return ["-m", "hydra/sweeper=grid", *launcher.elsewhere, *self.typed, *given]

    def program(self, work: Path) -> Path:
        return (ROOT if self.is_ours else work) / "train.py"

    def sweep(
        self, work: Path, launcher: Chosen, *given: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a sweep."""
        return subprocess.run(
            [sys.executable, str(self.program(work)), *self.words(launcher, *given)],
            cwd=work,
            env=one_thread(launcher.environment),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def started(self, work: Path, launcher: Chosen, *given: str) -> AbstractContextManager[Process]:
        """Start a sweep; what is left of it at the end is killed."""
        words, environment = self.words(launcher, *given), one_thread(launcher.environment)
        return started(work, *words, program=self.program(work), environment=environment)

    def folders(self, work: Path) -> dict[str, Path]:
        """Return the directories of the runs by what varies."""
        records = sorted(work.glob(str(Path("multirun/*/*", self.inner, "result.json"))))
        found = [work.joinpath(*path.relative_to(work).parts[:3]) for path in records]
        return {path.name.rpartition("_")[0]: path for path in found}

    def records(self, work: Path) -> dict[str, Json]:
        """Return the records by what varies."""
        return {
            name: json.loads((path / self.inner / "result.json").read_text())
            for name, path in self.folders(work).items()
        }

    def folder(self, value: str) -> str:
        """Return the name of the run of one value."""
        # As Hydra writes numbers.
        return f"{self.knob}-{float(value) if value == '1e9' else value}"

    def progress(self, run: Path) -> Json:
        """Return the sign of life of a run."""
        found: Json = json.loads((run / self.inner / "progress.json").read_text())
        return found

    def results(self, work: Path) -> dict[str, Json]:
        """Return what the runs came to, by what varies."""
        names = ("status", "objective", "metrics")
        records = self.records(work).items()
        return {name: {key: one[key] for key in names} for name, one in records}

    def states(self, work: Path) -> dict[str, tuple[str, int]]:
        """Return how the runs stand, and in how many attempts, by what varies."""
        return {name: (one["status"], one["attempts"]) for name, one in self.records(work).items()}


def _as_with_one_thread(run: Path, record: Json) -> None:
    # Computed with the same number of threads everywhere: the same numbers come out.
    note = json.loads((run / "note.json").read_text())
    assert (note["threads"], record["threads"]) == (1, 1)
    assert abs(record["metrics"]["test/accuracy"] - 0.9547) < 5e-5


def _has_its_loss(run: Path, record: Json) -> None:
    assert record["objective"]["value"] > 0
    assert (run / "state-3.pt").is_file()


def _has_what_its_trainer_logged(run: Path, record: Json) -> None:
    assert record["metrics"]["val_loss"] > 0
    assert record["training"]["epochs"] == 3


QUICK = ("experiment=quick", "trainer=cpu", "warmup=off")
OURS = Subject(
    name="train",
    short=(*QUICK, "trainer.max_epochs=2", "total_iters=30", NOTE),
    long=(*QUICK, "trainer.max_epochs=15", "total_iters=60"),
    knob="optimizer.lr",
    good="0.1",
    bad={"1e9": "DivergedWeightError", "-1": "ConfigError"},
    refused=("-1",),
    checkpoints="resume/step-*.ckpt",
    inner="",
    look=_as_with_one_thread,
)
# Nothing but torch: the app's own loop and checkpoints.
LOOP = Subject(
    name="loop",
    short=("epochs=3",),
    long=("epochs=15", "pause_s=0.1"),
    knob="lr",
    good="0.1",
    bad={"-1": "ValueError", "none": "TypeError"},
    checkpoints="state-2.pt",
    look=_has_its_loss,
    # Of files that are none of Lightning's nobody guesses what they are.
    typed=("hydra.sweeper.resume_key=resume_from",),
)
# Lightning's loop and checkpoints.
REGISTRY = Subject(
    name="registry",
    short=("epochs=3", "callbacks.early_stopping.patience=9"),
    long=("epochs=40", "callbacks.early_stopping.patience=99"),
    knob="hidden",
    good="8",
    bad={"-1": "RuntimeError", "none": "TypeError"},
    checkpoints="**/last.ckpt",
    look=_has_what_its_trainer_logged,
)
