"""Of what files the data of a run was made, and whether they have changed since.

Imports nothing heavy: a sweep asks it of every completed run.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from coreai_opt.config.locations import typed_path

WHOLE_BYTES = 1 << 26  # of a longer file, both ends and the size count
END_BYTES = 1 << 20
MOST_FILES = 10_000  # of a folder


def data_files(config: Mapping[str, Any], data: Any) -> dict[str, dict[str, Any]]:
    """Return what is known of the files behind a run's data, by path.

    They are those that ``data.data_files()`` returns, where the DataModule has that method, else
    the values of the config's ``data`` node that name an existing file or folder; and
    ``init_from``.

    Args:
        config: the resolved config.
        data: the DataModule.
    """
    tell = getattr(data, "data_files", None)
    paths = list(tell() if callable(tell) else _named_in(config.get("data")))
    if config.get("init_from"):
        paths.append(typed_path(str(config["init_from"])))
    facts = {str(path): file_facts(Path(path)) for path in paths}
    return {path: known for path, known in facts.items() if known is not None}


def changed_files(record: Mapping[str, Any]) -> list[str]:
    """Return the files of a record's data that are not what they were.

    A file that is not there (any more) is not among them: the data may lie elsewhere today.
    """
    known = (record.get("data") or {}).get("files") or {}
    return [path for path, facts in known.items() if _has_changed(path, facts)]


def forget_files() -> None:
    """Look at files anew, which are looked at once for all runs of a sweep."""
    _facts_once.cache_clear()


def file_facts(path: Path) -> dict[str, Any] | None:
    """Return size, time of change and hash of a file, or of a folder's list of files.

    Returns:
        None where it is not there or cannot be read.
    """
    try:
        status = path.stat()
        if path.is_dir():
            return {"bytes": None, "modified": None, "sha256": _folder_hash(path)}
        return {
            "bytes": status.st_size,
            "modified": status.st_mtime_ns,
            "sha256": _file_hash(path, status.st_size, status.st_mtime_ns),
        }
    except OSError:
        return None


def _has_changed(path: str, facts: Mapping[str, Any]) -> bool:
    with suppress(OSError):
        status = Path(path).stat()
        as_before = (status.st_size, status.st_mtime_ns)
        if as_before == (facts.get("bytes"), facts.get("modified")):
            return False
    now = _facts_once(path)
    return now is not None and now["sha256"] != facts.get("sha256")


@cache
def _facts_once(path: str) -> dict[str, Any] | None:
    # All runs of a sweep have the same files.
    return file_facts(Path(path))


def _named_in(node: Any) -> Iterator[Path]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield from _named_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from _named_in(value)
    elif isinstance(node, str) and node:
        with suppress(OSError, ValueError):
            if (path := typed_path(node)).exists():
                yield path


@cache
def _file_hash(path: Path, size: int, modified: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            while part := file.read(END_BYTES):
                digest.update(part)
        else:
            digest.update(file.read(END_BYTES))
            file.seek(-END_BYTES, 2)
            digest.update(file.read(END_BYTES))
    return digest.hexdigest()[:16]


def _folder_hash(folder: Path) -> str:
    listing = hashlib.sha256()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    for path in islice(files, MOST_FILES):
        listing.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
    return listing.hexdigest()[:16]
