"""Environment of the runs: code, versions, device and threads, and where they differ."""

from collections import Counter
from collections.abc import Callable, Sequence
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
    facts: list[tuple[str, Callable[[RunRow], str]]] = [("commit", _commit)]
    for package in packages:
        facts.append((package, lambda row, name=package: _version(row, name)))  # type: ignore[misc]
    facts += [("device", _device), ("threads", lambda row: _text(row.record.get("threads")))]
    found = [Fact(safe_text(name), _counted(rows, tell)) for name, tell in facts]
    return [fact for fact in found if fact.values]


def _counted(rows: Sequence[RunRow], tell: Callable[[RunRow], str]) -> list[tuple[str, int]]:
    counts = Counter(value for row in rows if (value := tell(row)))
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


def _version(row: RunRow, package: str) -> str:
    return _text(mapping(row.record.get("versions")).get(package))


def _device(row: RunRow) -> str:
    device = mapping(row.record.get("device"))
    return ", ".join(_text(device[key]) for key in ("accelerator", "name") if device.get(key))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
