"""Records of runs, read from disk; a damaged file is listed and never raises."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from coreai_opt.config.errors import printable
from coreai_opt.config.locations import why_no_file
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.paths import RunPaths

SWEEP_FILE = "sweep.json"
DEPTH = 4
SKIPPED = ("trunks", "checkpoints", "resume", "tensorboard", ".hydra")
STATES = ("completed", "running", "interrupted", "failed")


@dataclass(frozen=True)
class Layer:
    """Weights of one layer, counted."""

    name: str
    elements: int
    nonzero: int


@dataclass(frozen=True)
class RunRow:
    """One run; values that its record lacks, or has in another form, are None or empty.

    Attributes:
        folder: the run directory.
        sweep: name of the sweep that it belongs to.
        state: ``completed``, ``failed``, ``interrupted`` or ``running``.
        record: the record as it is.
    """

    folder: Path
    sweep: str
    state: str
    record: Mapping[str, Any] = field(repr=False)

    @cached_property
    def overrides(self) -> Mapping[str, str]:
        """Values as typed, by key."""
        return by_key(override_list(self.record))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, none while nothing has been counted."""
        layers = mapping(self.record.get("sparsity")).get("layers")
        found = []
        for layer in layers if isinstance(layers, list) else []:
            counts = [number(mapping(layer).get(name)) for name in ("elements", "nonzero")]
            if counts[0] and counts[1] is not None:
                found.append(Layer(str(layer.get("name")), int(counts[0]), int(counts[1])))
        return tuple(found)

    @property
    def id(self) -> str:
        """The same for runs of the same experiment."""
        digest = self.record.get("config_hash")
        return digest if isinstance(digest, str) else str(self.folder)

    @property
    def config(self) -> Mapping[str, Any]:
        return mapping(self.record.get("config"))

    @property
    def choices(self) -> Mapping[str, Any]:
        """The option of each group, empty in older records."""
        return mapping(self.record.get("choices"))

    @property
    def seed(self) -> str:
        seed = self.record.get("seed")
        return "" if seed is None else str(seed)

    @property
    def is_dense(self) -> bool:
        """Whether this is a dense control: a config without a schedule."""
        if self.is_of_another_app:
            return self.knobs.get("schedule") == "none"
        return "schedule" in self.config and self.config["schedule"] is None

    @property
    def is_of_another_app(self) -> bool:
        """Whether this is no run of our own app."""
        return isinstance(self.record.get("app"), Mapping)

    @property
    def knobs(self) -> Mapping[str, Any]:
        """The knobs of pruning of a run of another app, empty where it has none."""
        of_hydra = mapping(mapping(self.config.get("hydra")).get("callbacks"))
        nodes = (of_hydra.get("prune"), self.config.get("prune"), self.config.get("coreai_prune"))
        found = (mapping(node) for node in nodes)
        return next((node for node in found if "target_sparsity" in node), {})

    @property
    def objective(self) -> str | None:
        """Name of the objective."""
        for node in (self.record.get("objective"), self.config.get("objective")):
            name = mapping(node).get("name")
            if isinstance(name, str):
                return name
        return None

    @property
    def mode(self) -> str:
        """Whether more of the objective is better: ``max`` or ``min``."""
        nodes = (self.record.get("objective"), self.config.get("objective"))
        return "min" if "min" in [mapping(node).get("mode") for node in nodes] else "max"

    def metric(self, name: str) -> float | None:
        """Return a metric at the best checkpoint."""
        value = number(mapping(self.record.get("metrics")).get(name))
        objective = mapping(self.record.get("objective"))
        if value is None and objective.get("name") == name:
            return number(objective.get("value"))
        return value

    @property
    def achieved(self) -> float | None:
        """Sparsity of the pruned layers, counted."""
        return number(mapping(self.record.get("sparsity")).get("achieved"))

    @property
    def is_below_target(self) -> bool:
        """Whether the record says that the sparsity is below its target."""
        return mapping(self.record.get("sparsity")).get("below_target") is True

    @property
    def sparsity(self) -> float | None:
        """Sparsity of all weights of two or more dimensions, counted.

        Records that were written before it was counted say it of all parameters, which is nearly
        the same, or of the pruned layers alone.
        """
        counted = number(mapping(self.record.get("sparsity")).get("of_all_weights"))
        if counted is None and (ratio := self.compression):
            return 1 - 1 / ratio
        return self.achieved if counted is None else counted

    @property
    def target(self) -> float | None:
        """Sparsity that was asked for, 0 for a dense control."""
        if self.is_dense:
            return 0.0
        value = number(mapping(self.record.get("sparsity")).get("target"))
        asked = self.knobs if self.is_of_another_app else self.config
        return number(asked.get("target_sparsity")) if value is None else value

    @property
    def compression(self) -> float | None:
        """All parameters through those that are not zero."""
        return _ratio(self.record.get("parameters"), "total", "nonzero")

    @property
    def speedup(self) -> float | None:
        """Operations of a forward pass through those with weights that are not zero."""
        return _ratio(self.record.get("operations"), "dense", "effective")

    @property
    def seconds(self) -> float | None:
        return number(self.record.get("wall_seconds"))

    @property
    def error(self) -> tuple[str, str, str]:
        """Type, message and traceback; empty where there was none."""
        error = mapping(self.record.get("error"))
        values = [error.get(name) for name in ("type", "message", "traceback")]
        kind, message, trace = ("" if value is None else printable(str(value)) for value in values)
        return kind, message, trace


@dataclass(frozen=True)
class Unreadable:
    """A file that should be a record or a sweep's file, and why it is not."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Pending:
    """A point of a sweep that no run has begun."""

    sweep: str
    folder: str
    overrides: tuple[str, ...]

    @property
    def values(self) -> Mapping[str, str]:
        """Values as typed, by key."""
        return by_key(self.overrides)


@dataclass(frozen=True)
class SweepFile:
    """Content of ``sweep.json``; a name alone where there is none."""

    root: Path
    name: str
    knobs: tuple[str, ...] = ()
    points: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Collected:
    """Records below some directories.

    Attributes:
        duplicates: runs that are left out, because another one is of the same experiment.
    """

    rows: tuple[RunRow, ...]
    unreadable: tuple[Unreadable, ...]
    sweeps: tuple[SweepFile, ...]
    pending: tuple[Pending, ...]
    duplicates: int = 0

    def count(self, state: str) -> int:
        """Return how many runs are in a state."""
        return sum(row.state == state for row in self.rows)


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


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Return the values of overrides by key; one that removes a key has an empty value.

    Example:
        >>> by_key(["power=2", "++a.b='c=d'", "~logger"])
        {'power': '2', 'a.b': "'c=d'", 'logger': ''}
    """
    parted = [text.lstrip("+~").partition("=") for text in overrides]
    return {key: value for key, _, value in parted}


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a node of a record, empty where it is none."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """Return a number of a record, None where it is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # A whole number may have any number of digits in JSON.
    return float(value) if is_number and abs(value) < 1e300 else None


def _ratio(node: Any, whole: str, part: str) -> float | None:
    over, under = number(mapping(node).get(whole)), number(mapping(node).get(part))
    return over / under if over and under else None


def override_list(record: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a record as they were typed."""
    overrides = record.get("overrides")
    return [str(one) for one in overrides] if isinstance(overrides, list) else []


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
