"""Records of runs: what the report reads of each; nothing in them raises."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from coreai_opt.config.errors import printable

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

    @cached_property
    def seed_key(self) -> str:
        """Key of the seed in the config: ``seed``, else the ``*.seed`` nearest to the root."""
        found = ["seed", *sorted(_seed_keys(self.config), key=lambda key: (key.count("."), key))]
        return next((key for key in found if key in self.config or "." in key), "seed")

    @property
    def seed(self) -> str:
        seed = self.record.get("seed")
        if seed is None:
            seed = self.config
            for part in self.seed_key.split("."):
                seed = mapping(seed).get(part)
        return "" if seed is None or isinstance(seed, Mapping) else str(seed)

    @property
    def is_dense(self) -> bool:
        """Whether this is a dense control: a config without a schedule."""
        if self.is_of_another_app:
            return self.knobs.get("schedule") == "none"
        return "schedule" in self.config and self.config["schedule"] is None

    @property
    def prunes(self) -> bool:
        """Whether the run has to do with pruning, as a dense control has."""
        ours = not self.is_of_another_app and "schedule" in self.config
        return ours or bool(self.knobs) or bool(mapping(self.record.get("sparsity")))

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
        return next((node for node in found if {"target_sparsity", "masks_from"} <= set(node)), {})

    @property
    def objective(self) -> str | None:
        """Name of the objective."""
        for node in (self.record.get("objective"), self.config.get("objective")):
            name = mapping(node).get("name")
            if isinstance(name, str):
                return name
        return None

    @property
    def mode(self) -> str | None:
        """Whether more of the objective is better: ``max``, ``min`` or None, unsaid."""
        nodes = (self.record.get("objective"), self.config.get("objective"))
        modes = [mapping(node).get("mode") for node in nodes]
        return next((mode for mode in modes if mode in ("max", "min")), None)

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


def _seed_keys(node: Mapping[str, Any], above: str = "") -> list[str]:
    found = []
    for key, value in node.items():
        if isinstance(value, Mapping):
            found += _seed_keys(value, f"{above}{key}.")
        elif key == "seed":
            found.append(f"{above}{key}")
    return found


def _ratio(node: Any, whole: str, part: str) -> float | None:
    over, under = number(mapping(node).get(whole)), number(mapping(node).get(part))
    return over / under if over and under else None


def override_list(record: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a record as they were typed."""
    overrides = record.get("overrides")
    return [str(one) for one in overrides] if isinstance(overrides, list) else []
