"""What is in a store of trunks, and removing it; what is not the store's own is never touched."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from stat import S_ISDIR

from coreai_opt.warmup.claim import (
    Maker,
    SeenClaim,
    clock_ahead,
    identity_of,
    process_is_gone,
    read_claim,
    remove,
    set_aside,
)
from coreai_opt.warmup.store import (
    BrokenTrunkError,
    Trunk,
    TrunkStore,
    belongs_to_store,
    read_trunk,
)

__all__ = ["Entry", "Pruned", "entries", "prune"]

# Writing a checkpoint on another node may take long, and nothing shows that it goes on.
TEMPORARY_S = 3600.0
OWN = re.compile(r"([0-9a-f]{16})(|\.claim|\.declined)")
TEMPORARY = re.compile(
    r"\.([0-9a-f]{16})\.(?:([0-9a-f]{8}-\d+-\d+)\.\w+\.(?:part|gone)|declined\.\d+)"
)


@dataclass(frozen=True)
class Entry:
    """What a store has of one trunk.

    Args:
        id: the trunk's.
        state: ``ok`` (its checksum is not looked at), ``claimed`` (a process makes it),
            ``declined``, ``incomplete``, or ``leftover`` (only files of a maker that died).
        trunk: the trunk, where there is a whole one.
        maker: who makes it, where it is claimed.
        reason: why it was declined, or what is wrong with it.
        bytes: size of all its files.
        age_s: seconds since it was made, or last changed.
    """

    id: str
    state: str
    trunk: Trunk | None
    maker: Maker | None
    reason: str
    bytes: int
    age_s: float


@dataclass(frozen=True)
class Pruned:
    """What ``prune`` has done, or would do.

    Args:
        removed: the entries.
        kept: those that were meant, but are being made.
        failed: one sentence for each path that could not be removed.
        bytes: size of what was removed, leftovers of dead makers included.
    """

    removed: list[Entry] = field(default_factory=list)
    kept: list[Entry] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    bytes: int = 0


@dataclass
class _Files:
    """The paths of one trunk."""

    directory: Path | None = None
    declined: Path | None = None
    claim: Path | None = None
    seen: SeenClaim | None = None  # the claim, where it is alive
    dead: list[Path] = field(default_factory=list)
    writing: list[Path] = field(default_factory=list)

    def all(self) -> Iterator[Path]:
        yield from self.dead
        yield from self.writing
        yield from (path for path in (self.directory, self.declined, self.claim) if path)


def entries(root: Path) -> list[Entry]:
    """Return what a store has, newest first; a directory that is not there has nothing.

    Raises:
        OSError: the directory cannot be read.
    """
    found = [_entry(id, files) for id, files in _scan(root).items()]
    return sorted(found, key=lambda entry: (entry.age_s, entry.id))


def prune(
    root: Path, selected: Callable[[Entry], bool], force: bool = False, dry_run: bool = False
) -> Pruned:
    """Remove entries, and in any case what dead makers have left behind.

    Args:
        root: the store's directory.
        selected: says of each entry whether it is to go.
        force: also remove what is claimed. Its maker is not stopped: it stores it again.
        dry_run: only say what would be removed.

    Raises:
        OSError: the directory cannot be read.
    """
    done = Pruned()
    size = 0
    for id, files in _scan(root).items():
        entry = _entry(id, files)
        paths = list(files.dead)
        meant = entry.state == "leftover" or selected(entry)
        # What is being written stays in any case: it ends by itself.
        theirs = [path for path in (files.directory, files.declined, files.claim) if path]
        if meant and entry.state == "claimed" and not (force and theirs):
            done.kept.append(entry)
            meant = False
        elif meant:
            paths += theirs
        known = len(done.failed)
        for path in paths:
            freed = _size(path)
            try:
                if not dry_run:
                    _remove(path)
            except OSError as error:
                done.failed.append(f"{str(path)!r} cannot be removed: {error.strerror or error}")
            else:
                size += freed
        if meant and len(done.failed) == known:
            done.removed.append(entry)
    return Pruned(done.removed, done.kept, done.failed, size)


def _scan(root: Path) -> dict[str, _Files]:
    try:
        paths = sorted(root.iterdir())
    except FileNotFoundError:
        return {}
    groups: dict[str, _Files] = {}
    for path in paths:
        if match := OWN.fullmatch(path.name):
            if _is_file(path) if match[2] else belongs_to_store(path):
                _sort_in(groups.setdefault(match[1], _Files()), match[2], path)
        elif match := TEMPORARY.fullmatch(path.name):
            files = groups.setdefault(match[1], _Files())
            gone = process_is_gone(match[2] or "") or _idle_s(path) > TEMPORARY_S
            (files.dead if gone else files.writing).append(path)
    return groups


def _sort_in(files: _Files, kind: str, path: Path) -> None:
    if not kind:
        files.directory = path
    elif kind == ".declined":
        files.declined = path
    elif (seen := read_claim(path)) is not None:
        ahead = 0.0
        with contextlib.suppress(OSError):
            ahead = clock_ahead(path)
        if seen.is_stale(time.time() + ahead):
            files.dead.append(path)
        else:
            files.claim, files.seen = path, seen


def _entry(id: str, files: _Files) -> Entry:
    trunk, reason = None, ""
    state = "leftover" if files.dead and not files.writing else "claimed"
    if files.declined is not None:
        state, reason = "declined", _reason(files.declined)
    if files.directory is not None:
        try:
            state, trunk = "ok", read_trunk(files.directory, id)
        except BrokenTrunkError as error:
            state, reason = "incomplete", str(error)
    if files.seen is not None:
        state = "claimed"
    if trunk is not None:
        age = time.time() - datetime.fromisoformat(trunk.created).timestamp()
    else:
        age = min((_idle_s(path) for path in files.all()), default=0.0)
    maker = files.seen.maker if files.seen is not None else None
    size = sum(_size(path) for path in files.all())
    return Entry(id, state, trunk, maker, reason, size, max(age, 0.0))


def _reason(path: Path) -> str:
    return TrunkStore(path.parent).declined(path.stem) or ""


def _remove(path: Path) -> None:
    """Remove a path of the store so that nobody sees half of it."""
    if path.name.startswith("."):
        remove(path)
        return
    try:
        aside = set_aside(path, identity_of(path))
    except FileNotFoundError:
        return
    if aside is not None:
        remove(aside)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _idle_s(path: Path) -> float:
    """Return the seconds since the last change of a path or what is in it."""
    now = time.time()
    return now - max((stat.st_mtime for stat in _stats(path)), default=now)


def _size(path: Path) -> int:
    return sum(stat.st_size for stat in _stats(path) if not S_ISDIR(stat.st_mode))


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Yield of a path and of all in it what others leave there meanwhile."""
    paths = [path]
    for top, folders, files in os.walk(path):
        paths += [Path(top, name) for name in (*folders, *files)]
    for each in paths:
        with contextlib.suppress(FileNotFoundError):
            yield each.lstat()
