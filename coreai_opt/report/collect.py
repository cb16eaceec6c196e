"""Collection of records: the runs below some directories; a damaged file is listed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coreai_opt.config.locations import why_no_file
from coreai_opt.report.records import (
    STATES,
    Collected,
    Pending,
    RunRow,
    SweepFile,
    Unreadable,
    mapping,
    override_list,
)
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.paths import RunPaths

SWEEP_FILE = "sweep.json"
DEPTH = 4
SKIPPED = ("trunks", "checkpoints", "resume", "tensorboard", ".hydra")


def collect(roots: list[Path]) -> Collected:
    """Read all records below some directories.

    A directory is that of a sweep, of several sweeps, or of a single run. Of several runs of the
    same experiment the completed one counts, and of those the newest.
    """
    rows: list[RunRow] = []
    unreadable: list[Unreadable] = []
    sweeps: list[SweepFile] = []
    for root in dict.fromkeys(one for given in roots for one in _sweep_roots(given)):
        sweep = _sweep_file(root, [one.name for one in sweeps], unreadable)
        sweeps.append(sweep)
        for folder in _run_folders(root, DEPTH, unreadable):
            row = row_of(folder, sweep.name)
            (rows if isinstance(row, RunRow) else unreadable).append(row)  # type: ignore[arg-type]
    rows = [row for row in rows if row.record.get("kind") != "warmup"]  # others start from them
    unique = _unique(rows)
    taken = {row.folder for row in rows}
    known = {row.id for row in rows}
    pending = [one for sweep in sweeps for one in _pending(sweep, known, taken)]
    duplicates = len(rows) - len(unique)
    return Collected(tuple(unique), tuple(unreadable), tuple(sweeps), tuple(pending), duplicates)


def row_of(folder: Path, sweep: str = "") -> RunRow | Unreadable:
    """Return the run of a directory, or why its record cannot be read."""
    path = RunPaths.at(folder).result
    try:
        run = ExistingRun.at(folder)
    except RecursionError:
        return Unreadable(path, "is nested too deeply")
    if run is None:
        return Unreadable(path, _why_not(path))
    try:
        state = run.state
    except (TypeError, ValueError, LookupError, OverflowError, RecursionError):
        state = "interrupted"  # progress.json is not ours: no sign of life
    if state not in STATES:
        return Unreadable(path, f"its status is {state!r}; allowed: {', '.join(STATES)}")
    return RunRow(folder, sweep, state, run.record)


def _run_folders(root: Path, depth: int, unreadable: list[Unreadable]) -> Iterator[Path]:
    if os.path.lexists(RunPaths.at(root).result):
        yield root
        return
    try:
        with os.scandir(root) as entries:
            folders = sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError as error:
        unreadable.append(Unreadable(root, f"cannot be read, {error.strerror}"))
        return
    for folder in folders if depth else []:
        if folder.name not in SKIPPED and not RunPaths(folder).is_archived:
            yield from _run_folders(folder, depth - 1, unreadable)


def _why_not(path: Path) -> str:
    if (reason := why_no_file(path)) is not None:
        return reason
    content, reason = _json_in(path)
    what = "it has no config" if isinstance(content, dict) else "it is no JSON object"
    return reason or f"is not a record: {what}"


def _json_in(path: Path) -> tuple[Any, str | None]:
    """Return what a JSON file holds, or why it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8")), None
    except OSError as error:
        return None, f"cannot be read, {error.strerror}"
    except (ValueError, RecursionError) as error:
        return None, f"is not JSON: {error}"


def _sweep_roots(root: Path) -> list[Path]:
    """Return the directories of sweeps below a directory, itself where there are none."""
    root = Path(os.path.abspath(root))  # noqa: PTH100
    found = [] if (root / SWEEP_FILE).is_file() else sorted(root.glob(f"*/{SWEEP_FILE}"))
    return [path.parent for path in found] or [root]


def _sweep_file(root: Path, names: list[str], unreadable: list[Unreadable]) -> SweepFile:
    path = root / SWEEP_FILE
    content, reason = _json_in(path) if os.path.lexists(path) else ({}, None)
    if reason is None and not isinstance(content, dict):
        reason = "is no JSON object; it is left out"
    if reason is not None:
        unreadable.append(Unreadable(path, reason))
    node = mapping(content)
    name = node.get("name") if isinstance(node.get("name"), str) else root.name
    if name in names:
        name = f"{name} ({root})"
    knobs = node.get("knobs")
    named = tuple(str(knob) for knob in knobs) if isinstance(knobs, list) else ()
    return SweepFile(root, str(name), named, mapping(node.get("points")))


def _unique(rows: list[RunRow]) -> list[RunRow]:
    best: dict[str, RunRow] = {}
    for row in sorted(rows, key=_worth, reverse=True):
        best.setdefault(row.id, row)
    return [row for row in rows if best[row.id] is row]


def _worth(row: RunRow) -> tuple[int, str]:
    return -STATES.index(row.state), str(row.record.get("started"))


def _pending(sweep: SweepFile, known: set[str], taken: set[Path]) -> Iterator[Pending]:
    for digest, point in sweep.points.items():
        folder = str(mapping(point).get("folder", digest))
        if digest not in known and sweep.root / folder not in taken:
            yield Pending(sweep.name, folder, tuple(override_list(mapping(point))))
