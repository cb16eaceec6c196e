"""Where things are: the config tree, and every path of a run."""

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from coreai_opt.experiment.cluster import rank_of

__all__ = ["RunPaths", "conf_dir", "is_main_process", "typed_path", "why_no_file"]

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


def conf_dir() -> Path:
    """Return the config tree: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"no config tree in {package / 'conf'} or {package.parent / 'conf'}")


def is_main_process() -> bool:
    """Return whether this process writes the record: the only one, or rank 0 of several."""
    return rank_of(os.environ) == 0


def typed_path(text: str) -> Path:
    """Return the absolute path that a user means: from where the command was typed, ``~`` = home.

    Args:
        text: the path as it was typed.
    """
    from hydra.utils import to_absolute_path  # Hydra is slow to import, and --help needs no paths

    # Not Path.expanduser: that one raises where there is no user of the name.
    return Path(to_absolute_path(os.path.expanduser(text)))  # noqa: PTH111


def why_no_file(path: Path) -> str | None:
    """Return what is wrong with a path that should lead to a file, None when it does."""
    try:
        if path.is_file():
            return None
        return "is a directory" if path.is_dir() else "there is no such file"
    except OSError as error:
        return f"cannot be read, {error.strerror}"


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
    def plot(self) -> Path:
        return self.root / "run.png"

    @property
    def is_set_aside(self) -> bool:
        """Whether this is what ``set_aside`` has made of an earlier attempt."""
        return self.root.name.startswith("attempt-")

    def set_aside(self) -> Path:
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
