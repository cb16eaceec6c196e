"""Checkpoint files on disk: written whole, the newest few kept, damaged ones detected.

A file's name holds the first digits of the SHA-256 of what is in it, so that one rename makes both
the file and its checksum. Imports nothing heavy: whether there is anything to go on from is asked
before torch is there.
"""

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"step-(?P<step>\d{8,})-(?P<digest>[0-9a-f]{16})\.ckpt")
BESIDE = re.compile(r"\.step-\d{8,}-\d+\.ckpt(\..*)?")


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint file is not what was written, and the one before it is used."""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint as its name says it.

    Attributes:
        path: the file.
        step: optimizer steps finished.
        digest: first 16 hexadecimal digits of the SHA-256 of its content.
    """

    path: Path
    step: int
    digest: str

    @classmethod
    def at(cls, path: Path) -> "CheckpointFile | None":
        """Return what a file's name says, None for a file that was not written here."""
        match = NAME.fullmatch(path.name)
        return cls(path, int(match["step"]), match["digest"]) if match else None

    def is_whole(self) -> bool:
        """Return whether the file holds what was written; reads all of it."""
        try:
            return _digest(self.path) == self.digest
        except OSError:
            return False


def checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """Return the checkpoints of a folder, the newest first, unread; a missing folder has none."""
    if not folder.is_dir():
        return []
    found = [file for path in folder.iterdir() if (file := CheckpointFile.at(path)) is not None]
    # At equal steps (a gradient scaler skipped one) the one that was written last is newer.
    return sorted(found, key=lambda file: (file.step, _written(file.path)), reverse=True)


def newest_checkpoint(folder: Path) -> CheckpointFile | None:
    """Return the newest checkpoint that is whole; a warning names each damaged one."""
    for file in checkpoint_files(folder):
        if file.is_whole():
            return file
        warnings.warn(
            f"the checkpoint {file.path} is damaged: its content is not what was written; the one "
            "before it is used",
            DamagedCheckpointWarning,
            stacklevel=2,
        )
    return None


def write_checkpoint(
    folder: Path, step: int, write: Callable[[Path], object], finish: bool, keep: int
) -> CheckpointFile | None:
    """Write a checkpoint beside its place, rename it, and leave no more than the newest few.

    Where it cannot be written, what was there before is untouched.

    Args:
        folder: where to; made if need be.
        step: optimizer steps finished, for the name.
        write: writes to the path that it is given; called on every rank.
        finish: whether this process renames and removes: rank 0. Others return None.
        keep: how many files stay, >= 1.
    """
    beside = folder / f".step-{step:08d}-{os.getpid()}.ckpt"
    if finish:
        folder.mkdir(parents=True, exist_ok=True)
        _remove(_left_beside(folder))
    try:
        write(beside)
        if not finish:
            return None
        digest = _digest(beside)
        _flush(beside)
        path = folder / f"step-{step:08d}-{digest}.ckpt"
        beside.replace(path)
    except OSError:
        if finish:
            _remove([beside])
        raise
    with contextlib.suppress(OSError):  # not every file system can flush a folder
        _flush(folder)
    written = CheckpointFile(path, step, digest)
    others = [file for file in checkpoint_files(folder) if file.path != path]
    with contextlib.suppress(OSError):  # one more than are to be kept does no harm
        _remove(file.path for file in others[keep - 1 :])
    return written


def remove_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps: a run goes on from an earlier one."""
    _remove(file.path for file in checkpoint_files(folder) if file.step > step)


def remove_all(folder: Path) -> None:
    """Remove all checkpoints and the folder, if nothing else is in it."""
    _remove(file.path for file in checkpoint_files(folder))
    if folder.is_dir():
        _remove(_left_beside(folder))
        if not any(folder.iterdir()):
            folder.rmdir()


def _left_beside(folder: Path) -> list[Path]:
    """Return what writers that were killed have left."""
    return [path for path in folder.iterdir() if BESIDE.fullmatch(path.name)]


def _remove(paths: "Iterator[Path] | list[Path]") -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _flush(path: Path) -> None:
    # A rename survives a power loss only when the file's content and the folder are on the disk.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # removed by another process in between
        return 0
