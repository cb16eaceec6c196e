"""Dense warm-ups ("trunks") that jobs of a sweep share: who needs one first makes it.

A store is a directory that many processes, also of many nodes, use at once::

    0123456789abcdef/trunk.ckpt    the checkpoint
    0123456789abcdef/entry.json    its steps, time, maker and checksum
    0123456789abcdef.claim         there while a process makes it
    0123456789abcdef.declined      there when it cannot be made: the reason
    .0123456789abcdef.*            what is being written or removed

An entry appears and disappears by one rename of its directory: it is whole, or not there.
"""

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coreai_opt.runs.record import write_json
from coreai_opt.warmup.claim import (
    Claim,
    Maker,
    SeenClaim,
    clock_ahead,
    identity_of,
    read_claim,
    remove,
    set_aside,
    temporary_name,
)

__all__ = ["BrokenTrunkError", "Trunk", "TrunkStore", "belongs_to_store", "read_trunk"]

CHECKPOINT, ENTRY = "trunk.ckpt", "entry.json"
DECLINED_S = 3600.0  # there may be room on the disk again, or other code
ATTEMPTS = 3  # more than one is needed only when others replace the entry meanwhile


@dataclass(frozen=True)
class Trunk:
    """An entry of the store.

    Args:
        id: 16 hexadecimal digits, a hash of all that determines the content.
        path: the checkpoint. Whoever removes entries may remove it before it is read.
        steps: optimizer steps that it holds.
        seconds: wall time that making it took.
        created: when, ISO 8601 in UTC.
        bytes: size of the checkpoint.
        sha256: checksum of the checkpoint, hexadecimal.
        made_by: the run that made it.
    """

    id: str
    path: Path
    steps: int
    seconds: float
    created: str
    bytes: int
    sha256: str
    made_by: str


class BrokenTrunkError(Exception):
    """An entry is not whole; says what is wrong with it."""


class TrunkStore:
    """A store of trunks; nothing is made or read before it is needed.

    Where the directory cannot be used (it is a file, it is read-only, the disk is full), one
    warning says so, there are no trunks in it, and no claim is given: a run then trains its own.

    Args:
        root: the directory, made when the first trunk is.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self._warned = False

    def get(self, id: str) -> Trunk | None:
        """Return a trunk whose checksum is right, None when there is none.

        One that is damaged is removed with a warning.
        """
        directory = self._path(id)
        try:
            for _ in range(ATTEMPTS):
                try:
                    identity = identity_of(directory)
                except FileNotFoundError:
                    return None
                try:
                    return _verified(directory)
                except BrokenTrunkError as error:
                    # Else somebody has removed it while it was read, or made another.
                    if self._is_still(directory, identity):
                        self._discard(directory, identity, str(error))
                        return None
        except OSError as error:
            self._warn_unusable(error)
        return None

    def put(
        self, id: str, write: Callable[[Path], None], steps: int, seconds: float, made_by: str
    ) -> Trunk:
        """Store a trunk; one that is there already is kept.

        Args:
            id: 16 hexadecimal digits, a hash of all that determines the content.
            write: writes the checkpoint to the path that it is given.
            steps: optimizer steps that it holds.
            seconds: wall time that making it took.
            made_by: the run that made it.

        Returns:
            The trunk that is in the store now: this one, or that of whoever was faster.

        Raises:
            OSError: it cannot be stored; nothing is left behind. So with any error of ``write``.
        """
        directory = self._path(id)
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / temporary_name(id, "part")
        try:
            part.mkdir()
            write(part / CHECKPOINT)
            content = {
                "id": id,
                "steps": steps,
                "seconds": round(seconds, 3),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "bytes": (part / CHECKPOINT).stat().st_size,
                "sha256": _sha256(part / CHECKPOINT),
                "made_by": made_by,
            }
            write_json(part / ENTRY, {**content, "seal": _seal(content)})
            for path in (part / CHECKPOINT, part / ENTRY, part):
                _sync(path)
            trunk = self._publish(part, directory)
        finally:
            with contextlib.suppress(OSError):
                remove(part)
        with contextlib.suppress(OSError):
            self._declined_path(id).unlink(missing_ok=True)
        return trunk

    def decline(self, id: str, reason: str) -> None:
        """Say that a trunk cannot be made, so that those who wait do not try it in turn."""
        path = self._declined_path(id)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(path, {"reason": reason, "created": created})
        except OSError as error:
            self._warn_unusable(error)

    def declined(self, id: str) -> str | None:
        """Return why a trunk cannot be made, None when nobody has said so in the last hour."""
        path = self._declined_path(id)
        try:
            content = json.loads(path.read_bytes())
            is_old = time.time() - path.stat().st_mtime > DECLINED_S
            return None if is_old else str(content["reason"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def claim(
        self, id: str, waiting: Callable[[Maker], None], period_s: float = 0.5
    ) -> Claim | Trunk | None:
        """Take a trunk, or the right to make it; wait while another process makes it.

        Args:
            id: 16 hexadecimal digits, a hash of all that determines the content.
            waiting: called with who makes it, again and again while this process waits.
            period_s: seconds between two looks at what the other process does.

        Returns:
            The trunk; a claim, when this process is to make it (use it as a context manager: others
            wait until it is released); None when the trunk was declined, or the store cannot be
            used, or the calling thread itself holds the claim.
        """
        path = self._claim_path(id)
        ahead: float | None = None
        while True:
            if (trunk := self.get(id)) is not None:
                return trunk
            if self.declined(id) is not None:
                return None
            try:
                if (claim := self._try_to_claim(path)) is not None:
                    return self._unless_settled(id, claim)
                if ahead is None:
                    ahead = clock_ahead(path)
                seen = read_claim(path)
                if seen is not None and seen.is_of_this_thread():
                    return None
                if seen is not None and seen.is_stale(time.time() + ahead):
                    _break(path, seen)
                    continue
            except OSError as error:
                self._warn_unusable(error)
                return None
            if seen is not None and seen.maker is not None:
                waiting(seen.maker)
            time.sleep(period_s)

    def _try_to_claim(self, path: Path) -> Claim | None:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            return Claim(path)
        except FileExistsError:
            return None

    def _unless_settled(self, id: str, claim: Claim) -> Claim | Trunk | None:
        """Give the claim back when its last holder has finished since the store was looked at."""
        try:
            trunk = self.get(id)
            settled = trunk is not None or self.declined(id) is not None
        except BaseException:
            claim.release()
            raise
        if not settled:
            return claim
        claim.release()
        return trunk

    def _publish(self, part: Path, directory: Path) -> Trunk:
        made = read_trunk(part, directory.name)
        for attempt in range(ATTEMPTS):
            try:
                part.rename(directory)
            except OSError:
                # An entry of somebody else; or a server that has renamed, and been asked again.
                if (theirs := self.get(directory.name)) is not None:
                    return theirs
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                break
        _sync(self.root)
        return Trunk(**{**vars(made), "path": directory / CHECKPOINT})

    def _is_still(self, directory: Path, identity: tuple[int, int]) -> bool:
        try:
            return identity_of(directory) == identity
        except FileNotFoundError:
            return False

    def _discard(self, directory: Path, identity: tuple[int, int], reason: str) -> None:
        warnings.warn(
            f"the trunk {directory.name} in {str(self.root)!r} cannot be used, {reason}; "
            f"a new one is made",
            stacklevel=3,
        )
        with contextlib.suppress(OSError):
            if belongs_to_store(directory):
                aside = set_aside(directory, identity)
                if aside is not None:
                    remove(aside)

    def _warn_unusable(self, error: OSError) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            f"the trunk store {str(self.root)!r} cannot be used: {error.strerror or error}; "
            f"this run trains its own trunk",
            stacklevel=3,
        )

    def _path(self, id: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{16}", id):
            raise ValueError(f"{id!r} is no id of a trunk; allowed: 16 hexadecimal digits")
        return self.root / id

    def _claim_path(self, id: str) -> Path:
        return self._path(id).with_name(f"{id}.claim")

    def _declined_path(self, id: str) -> Path:
        return self._path(id).with_name(f"{id}.declined")


def read_trunk(directory: Path, id: str) -> Trunk:
    """Return what an entry says, without reading the checkpoint.

    Raises:
        BrokenTrunkError: it is not whole.
        OSError: it cannot be read.
    """
    if directory.is_symlink() or not directory.is_dir():
        raise BrokenTrunkError("it is no directory")
    try:
        content: dict[str, Any] = json.loads((directory / ENTRY).read_bytes())
        sealed = content.pop("seal") == _seal(content) and content["id"] == id
        trunk = Trunk(path=directory / CHECKPOINT, **content)
    except FileNotFoundError:
        raise BrokenTrunkError(f"it has no {ENTRY}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IsADirectoryError):
        raise BrokenTrunkError(f"its {ENTRY} is damaged") from None
    if not sealed:
        raise BrokenTrunkError(f"its {ENTRY} is damaged")
    try:
        size = trunk.path.stat().st_size
    except FileNotFoundError:
        raise BrokenTrunkError(f"it has no {CHECKPOINT}") from None
    if size != trunk.bytes:
        raise BrokenTrunkError(f"its {CHECKPOINT} has {size:,} of {trunk.bytes:,} bytes")
    return trunk


def belongs_to_store(directory: Path) -> bool:
    """Return whether a directory is an entry, whole or damaged, and nobody else's.

    Raises:
        OSError: it cannot be read.
    """
    if directory.is_symlink() or not directory.is_dir():
        return False
    try:
        names = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return False
    if names and names <= {CHECKPOINT, ENTRY}:
        return True
    try:
        read_trunk(directory, directory.name)
    except BrokenTrunkError:
        return False
    return True


def _verified(directory: Path) -> Trunk:
    trunk = read_trunk(directory, directory.name)
    try:
        found = _sha256(trunk.path)
    except FileNotFoundError:
        raise BrokenTrunkError(f"it has no {CHECKPOINT}") from None
    if found != trunk.sha256:
        raise BrokenTrunkError(f"the checksum of its {CHECKPOINT} is wrong")
    return trunk


def _break(path: Path, seen: SeenClaim) -> None:
    aside = set_aside(path, seen.identity)
    if aside is not None:
        remove(aside)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(content: dict[str, Any]) -> str:
    """Return the checksum of what an entry says of its checkpoint."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _sync(path: Path) -> None:
    """Wait until a file or directory is on the disk.

    Raises:
        OSError: a file cannot be written. That some file systems cannot do it for a directory is
            no error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
