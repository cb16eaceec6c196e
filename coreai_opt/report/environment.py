"""Environment of the runs: code, versions, device and threads, and where they differ."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from coreai_opt.report.records import RunRow, mapping
from coreai_opt.report.text import safe_text


@dataclass(frozen=True)
class Fact:
    """One property of the runs.

    Attributes:
        name: of the property.
        values: each value with the number of runs that have it, the most frequent first.
    """

    name: str
    values: list[tuple[str, int]]

    @property
    def differs(self) -> bool:
        return len(self.values) > 1


def environment(rows: Sequence[RunRow]) -> list[Fact]:
    """Return code, versions, devices and threads of the runs, as far as their records have them.

    A run without a device in its record makes no difference.
    """
    packages = dict.fromkeys(name for row in rows for name in mapping(row.record.get("versions")))
    told: list[tuple[str, list[Any]]] = [("commit", [_commit(row) for row in rows])]
    for name in packages:
        told.append((name, [mapping(row.record.get("versions")).get(name) for row in rows]))
    told.append(("device", [_device(row) for row in rows]))
    told.append(("threads", [row.record.get("threads") for row in rows]))
    found = [Fact(safe_text(name), _counted(values)) for name, values in told]
    return [fact for fact in found if fact.values]


def _counted(values: Iterable[Any]) -> list[tuple[str, int]]:
    counts = Counter(text for value in values if (text := _text(value)))
    return sorted(
        ((safe_text(value), count) for value, count in counts.items()),
        key=lambda pair: (-pair[1], pair[0]),
    )


def _commit(row: RunRow) -> str:
    git = row.record.get("git")
    if git is None:
        return "none: not started in a checkout"
    sha = _text(mapping(git).get("sha"))[:12]
    changes = mapping(git).get("changes")
    return f"{sha} with changes {changes}" if mapping(git).get("dirty") else sha


def _device(row: RunRow) -> str:
    device = mapping(row.record.get("device"))
    return ", ".join(_text(device[key]) for key in ("accelerator", "name") if device.get(key))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
