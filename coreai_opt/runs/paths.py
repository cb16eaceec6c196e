"""Paths of a run: what lies in its directory, and an earlier attempt that is archived there."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

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
    "run.png",
)


@dataclass(frozen=True)
class RunPaths:
    """Every path of one run."""

    root: Path

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def progress(self) -> Path:
        return self.root / "progress.json"

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
    def resume(self) -> Path:
        return self.root / "resume"

    @property
    def job(self) -> Path:
        """Says which job of a cluster was submitted for the run."""
        return self.root / "job.json"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def start(self) -> Path:
        return self.root / ".start.json"

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

    def archive_attempt(self) -> Path:
        """Move what an earlier attempt has left into a folder of its own, and return that.

        What else lies in the directory is somebody else's.
        """
        taken = {path.name for path in self.root.glob("attempt-*")}
        number = next(number for number in count(1) if f"attempt-{number}" not in taken)
        folder = self.root / f"attempt-{number}"
        folder.mkdir()
        for name in WRITTEN:
            if (self.root / name).exists():
                (self.root / name).rename(folder / name)
        return folder

    def relative(self, path: str | Path) -> str:
        """Return a path below the run directory as it stands in the record."""
        path = Path(path).resolve()
        root = self.root.resolve()
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
