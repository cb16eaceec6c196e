"""Going on in any app: its key for a checkpoint, and the newest whole one in a run directory."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.identity import flatten
from coreai_opt.plugin.settings import GUESS, NODE
from coreai_opt.pruning._registry import nearest
from coreai_opt.runs.paths import RunPaths
from lightning_callbacks._resume.checkpoint_files import CheckpointFile

# What apps call the checkpoint that a training goes on from, the clearest name first; the last two
# at the root alone: elsewhere they may be weights that a model begins with.
NAMES = (
    "ckpt_path",
    "resume_from_checkpoint",
    "resume_from",
    "resume_ckpt",
    "resume_path",
    "resume_checkpoint",
    "resume",
    "checkpoint_path",
    "checkpoint",
)
OF_THE_ROOT = NAMES[-2:]
OF_TRAINING = ("", "trainer", "train", "training", "fit")

SUFFIXES = (".ckpt", ".pt", ".pth")
PART = re.compile(r"checkpoint-\d+")  # of transformers.Trainer

# In every checkpoint of Lightning's, and in those that a training can go on from.
LIGHTNING, RESUMABLE = b"pytorch-lightning_version", b"optimizer_states"


@dataclass(frozen=True)
class Found:
    """A checkpoint in a run directory.

    Attributes:
        path: the file.
        is_exact: ``ResumableCheckpoint`` has written it.
        damaged: newer ones that are not whole.
    """

    path: Path
    is_exact: bool
    damaged: tuple[Path, ...] = ()


def resume_key(values: Mapping[str, Any], setting: str | None) -> str | None:
    """Return the key of a config that takes a checkpoint to go on from, None = there is none.

    Args:
        values: the plain config.
        setting: a key, ``auto`` = by the common names, None = there is none.

    Raises:
        ConfigError: the config has no such key.

    Example:
        >>> resume_key({"trainer": {"resume_from_checkpoint": None}, "lr": 1}, "auto")
        'trainer.resume_from_checkpoint'
        >>> resume_key({"model": {"ckpt_path": None}}, "auto") is None
        True
    """
    flat = flatten(dict(values))
    if setting is None:
        return None
    if setting != GUESS:
        if setting not in flat:
            sentence = f"{NODE}.resume_key={setting}: this app has no such key"
            raise ConfigError.of(
                f"{NODE}.resume_key", f"{sentence}; {nearest(setting, list(flat))}"
            )
        return setting
    for name in NAMES:
        for node in OF_TRAINING if name not in OF_THE_ROOT else ("",):
            key = f"{node}.{name}" if node else name
            if key in flat and flat[key] is None:  # what is given is somebody's choice
                return key
    return None


def hand_over(cfg: DictConfig, key: str, checkpoint: Path) -> None:
    """Put a checkpoint into a config."""
    with read_write(cfg), open_dict(cfg):
        OmegaConf.update(cfg, key, str(checkpoint))


def newest_in(paths: RunPaths, is_guessed: bool) -> Found | None:
    """Return the newest whole checkpoint below a run directory, None where there is none.

    Where there are checkpoints of Lightning's, those count from which a training can go on; else
    all files of torch's, if the user has named the key: they may hold anything.

    Args:
        paths: of the run; earlier attempts that were set aside do not count.
        is_guessed: whether the key is by its name alone.
    """
    damaged = []
    files = sorted(_files(paths.root), key=_written, reverse=True)
    is_lightning = any(LIGHTNING in _pickle_of(path) for path in files)
    for path in files:
        own = CheckpointFile.at(path)
        if not (own.is_whole() if own is not None else _is_whole(path)):
            damaged.append(path)
        elif RESUMABLE in _pickle_of(path) if is_lightning else not is_guessed:
            return Found(path, own is not None, tuple(damaged))
    return None


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            # A checkpoint that is a folder has parts, and none of them is one.
            is_one = path.suffix in SUFFIXES or PART.fullmatch(path.name)
            if not (is_one or path.is_symlink() or RunPaths(path).is_archived):
                yield from _files(path)
        elif path.suffix in SUFFIXES and path.is_file():
            yield path


def _written(path: Path) -> tuple[int, bool]:
    return path.stat().st_mtime_ns, "last" in path.name


def _is_whole(path: Path) -> bool:
    """Return whether all parts of a file of ``torch.save`` have their checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return False


def _pickle_of(path: Path) -> bytes:
    """Return the part of a file that names what it holds; empty where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.rpartition("/")[2] == "data.pkl"]
            return file.read(names[0]) if names else b""
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return b""
