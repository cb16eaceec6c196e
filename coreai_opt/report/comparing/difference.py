"""Difference of two runs: their metrics, and the configs and the environment key by key."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coreai_opt.report.records import RunRow, mapping, number
from coreai_opt.report.text import safe_text
from coreai_opt.report.values import value_text

RUN = "RUN"
ABSENT = "(not there)"
# Paths in the text of a value, which may be a list or a node.
PARTS = re.compile(r"[^,{}\[\]]+")
# Fields of a record that say with what a run was made.
ENVIRONMENT = ("git", "versions", "device", "threads")


@dataclass(frozen=True)
class MetricPair:
    """A number of two runs; None where a run has none."""

    name: str
    one: float | None
    two: float | None

    @property
    def difference(self) -> float | None:
        """The second less the first, None where one is not there."""
        return None if self.one is None or self.two is None else self.two - self.one


@dataclass(frozen=True)
class ValuePair:
    """A key whose value differs; ``(not there)`` where a run lacks it."""

    key: str
    one: str
    two: str


@dataclass(frozen=True)
class Difference:
    """Two runs side by side.

    Attributes:
        metrics: all numbers of both, whether they differ or not.
        config: keys of the configs with different values; what leads into the run's own directory
            counts as the same.
        environment: the same for code, versions, device and threads.
    """

    metrics: list[MetricPair]
    config: list[ValuePair]
    environment: list[ValuePair]


def difference(one: RunRow, two: RunRow) -> Difference:
    """Return two runs side by side."""
    numbers = [run_numbers(row) for row in (one, two)]
    names = dict.fromkeys([*numbers[0], *numbers[1]])
    metrics = [MetricPair(name, numbers[0].get(name), numbers[1].get(name)) for name in names]
    config = _differing(*(config_texts(row) for row in (one, two)))
    return Difference(metrics, config, _differing(*map(environment_texts, (one, two))))


def run_numbers(row: RunRow) -> dict[str, float]:
    """Return the numbers that a run came to: metrics, objective, sizes and time."""
    found = dict[str, float | None]()
    if row.objective is not None:
        found[row.objective] = row.metric(row.objective)
    found |= {str(name): row.metric(name) for name in mapping(row.record.get("metrics"))}
    if row.prunes:
        found |= {"achieved": row.achieved, "sparsity of all weights": row.sparsity}
        found |= {"compression": row.compression, "speed-up": row.speedup}
    parameters = mapping(row.record.get("parameters"))
    found |= {"parameters": number(parameters.get("total")), "seconds": row.seconds}
    return {name: value for name, value in found.items() if value is not None}


def config_texts(row: RunRow) -> dict[str, str]:
    """Return the values of a config as text, by dotted key, the run's own directory as ``RUN``."""
    own = ["/".join(row.folder.parts[-2:])]  # wherever the run was made, these parts have stayed
    made = mapping(row.config.get("paths")).get("run_dir")
    own = [made, *own] if isinstance(made, str) and made else own
    return {
        # A value without a slash is no path.
        key: PARTS.sub(lambda part: _own_as_run(part[0], own), text) if "/" in text else text
        for key, text in _flat(row.config)
    }


def environment_texts(row: RunRow) -> dict[str, str]:
    """Return with what a run was made as text, by dotted key."""
    return dict(_flat({name: row.record.get(name) for name in ENVIRONMENT}))


def _own_as_run(path: str, own: Sequence[str]) -> str:
    for directory in own:
        before, found, after = path.partition(directory)
        if found and before[-1:] in ("", "/") and after[:1] in ("", "/"):
            return RUN + after
    return path


def _flat(node: Any, above: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(node, Mapping) or not node:
        yield above, value_text(node)
        return
    for key, value in node.items():
        yield from _flat(value, f"{above}.{key}" if above else str(key))


def _differing(one: Mapping[str, str], two: Mapping[str, str]) -> list[ValuePair]:
    found = []
    for key in dict.fromkeys([*one, *two]):
        pair = (one.get(key, ABSENT), two.get(key, ABSENT))
        if pair[0] != pair[1]:
            found.append(ValuePair(safe_text(key), *map(safe_text, pair)))
    return found
