"""Paths of a run: what lies in its directory, and an earlier attempt that is archived there.

Apps of others write what they like into their directories: there our own files have a folder.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

# Our folder in the run directory of another app.
INNER = ".coreai"

# What a run writes into its directory, but for Hydra's config and log.
WRITTEN = (
    "result.json",
    "progress.json",
    "metrics.csv",
    "hparams.yaml",
    "sparsity.csv",
    "tensorboard",
    "checkpoints",
    "resume",
    "weights.pt",
    "deploy",
    "run.png",
)


@dataclass(frozen=True)
class RunPaths:
    """Every path of one run.

    Attributes:
        root: the run directory.
        inner: folder in it for the record and what else is ours; empty = the directory itself.
    """

    root: Path
    inner: str = ""

    @classmethod
    def at(cls, root: Path) -> Self:
        """Return the paths of a run directory of whichever app: by where its record is."""
        paths = cls(root, INNER)
        return paths if paths.result.exists() else cls(root)

    @property
    def home(self) -> Path:
        """Where the record is."""
        return self.root / self.inner

    @property
    def result(self) -> Path:
        return self.home / "result.json"

    @property
    def progress(self) -> Path:
        return self.home / "progress.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def sparsity(self) -> Path:
        return self.root / "sparsity.csv"

    @property
    def weights(self) -> Path:
        return self.root / "weights.pt"

    @property
    def deploy(self) -> Path:
        """A folder for each target that the model was deployed to."""
        return self.root / "deploy"

    @property
    def resume(self) -> Path:
        return self.home / "resume"

    @property
    def job(self) -> Path:
        """Says which job of a cluster was submitted for the run."""
        return self.home / "job.json"

    @property
    def lock(self) -> Path:
        return self.home / ".lock"

    @property
    def start(self) -> Path:
        return self.home / ".start.json"

    @property
    def warmup(self) -> Path:
        """Says to the other ranks of a launch which warm-up run rank 0 starts from."""
        return self.root / ".warmup.json"

    @property
    def plot(self) -> Path:
        return self.root / "run.png"

    @property
    def is_archived(self) -> bool:
        """Whether this is what ``archive_attempt`` has made of an earlier attempt."""
        return self.root.name.startswith("attempt-")

    def archive_attempt(self, kept: Collection[str] = ()) -> Path:
        """Move what an earlier attempt has left into a folder of its own, and return that.

        What else lies in our own app's directory is somebody else's; in that of another app all is
        the attempt's, but for logs, which are open, and what is kept.

        Args:
            kept: names of what Hydra has written for the new attempt.
        """
        taken = {path.name for path in self.root.glob("attempt-*")}
        number = next(number for number in count(1) if f"attempt-{number}" not in taken)
        folder = self.root / f"attempt-{number}"
        (folder / self.inner).mkdir(parents=True)
        for path in self._of_attempt(kept):
            path.rename(folder / path.relative_to(self.root))
        return folder

    def _of_attempt(self, kept: Collection[str]) -> list[Path]:
        ours = [self.home / name for name in WRITTEN if (self.home / name).exists()]
        if not self.inner:
            return ours
        others = (path for path in self.root.iterdir() if path.name not in (self.inner, *kept))
        apps = [one for one in others if one.suffix != ".log" and not RunPaths(one).is_archived]
        return [*ours, *apps]

    def relative(self, path: str | Path) -> str:
        """Return a path below the run directory as it stands in the record."""
        path = Path(path).resolve()
        root = self.root.resolve()
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
