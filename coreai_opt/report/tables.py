"""Tables of runs: varying knobs, mean and std over seeds, ranks, the Pareto front."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from coreai_opt.report.metric_choice import chosen_metric, direction
from coreai_opt.report.records import Collected, RunRow
from coreai_opt.report.values import as_number, knob_value

SEED = "seed"


@dataclass(frozen=True)
class SeedGroup:
    """Completed runs that differ in their seed alone.

    Attributes:
        knobs: value of each varied knob, None where a run has no such knob.
        sweep: name of their sweep; empty when there is only one.
        is_dense: whether they are dense controls.
        rows: the runs.
        values: the metric of each, in the same order.
    """

    knobs: Mapping[str, str | None]
    sweep: str
    is_dense: bool
    rows: tuple[RunRow, ...] = field(repr=False)
    values: tuple[float, ...]

    @property
    def seeds(self) -> int:
        """Number of different seeds."""
        return len({row.seed for row in self.rows})

    @cached_property
    def mean(self) -> float:
        return fmean(self.values)

    @cached_property
    def std(self) -> float | None:
        """Sample standard deviation (through n - 1), None for a single run."""
        return sample_std(self.values)

    @cached_property
    def achieved(self) -> float | None:
        return _mean(row.achieved for row in self.rows)

    @cached_property
    def sparsity(self) -> float | None:
        """Sparsity of all weights of two or more dimensions."""
        return _mean(row.sparsity for row in self.rows)

    @cached_property
    def target(self) -> float | None:
        return _mean(row.target for row in self.rows)

    @cached_property
    def compression(self) -> float | None:
        return _mean(row.compression for row in self.rows)

    @cached_property
    def speedup(self) -> float | None:
        return _mean(row.speedup for row in self.rows)

    @property
    def label(self) -> str:
        """The knobs as typed, or a name where none varies."""
        parts = [f"{key}={value}" for key, value in self.knobs.items() if value is not None]
        if self.is_dense and "schedule" not in self.knobs:
            parts.insert(0, "dense control")
        parts += [f"[{self.sweep}]"] if self.sweep else []
        return " ".join(parts) or "all runs"


@dataclass(frozen=True)
class LeaderboardRow:
    """A row of the leaderboard.

    Attributes:
        rank: 1 for the best; None for dense controls.
        delta: mean less that of the dense control that has most knobs in common; None without one.
    """

    group: SeedGroup
    rank: int | None
    delta: float | None


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboard: dense controls first, then the best first.

    Attributes:
        metric: of the comparison.
        mode: ``max`` when more of it is better, else ``min``.
        knobs: the knobs that vary, seed left out.
        unmeasured: completed runs that have no such metric.
        prunes: whether any run has to do with pruning.
        is_mode_assumed: whether nothing says which way is better, so that ``max`` was taken.
    """

    metric: str
    mode: str
    knobs: tuple[str, ...]
    entries: tuple[LeaderboardRow, ...]
    unmeasured: int
    prunes: bool = True
    is_mode_assumed: bool = False

    @property
    def groups(self) -> list[SeedGroup]:
        return [entry.group for entry in self.entries]

    @property
    def dense(self) -> list[SeedGroup]:
        return [group for group in self.groups if group.is_dense]

    @property
    def pruned(self) -> list[SeedGroup]:
        return [group for group in self.groups if not group.is_dense]

    @cached_property
    def is_share(self) -> bool:
        """Whether the metric is a share of 1, to be shown in percent."""
        name = self.metric.rpartition("/")[2].lower()
        values = [value for group in self.groups for value in group.values]
        return "acc" in name and all(0 <= value <= 1 for value in values)

    def show(self, value: float | None) -> str:
        """Return a value of the metric as people read it, with its unit."""
        if value is None:
            return ""
        return f"{100 * value:.2f} %" if self.is_share else f"{value:.4g}"

    def show_spread(self, value: float | None, sign: bool = False) -> str:
        """Return a std or a difference in the unit of ``show``, which is left out."""
        if value is None:
            return ""
        scaled, form = (100 * value, ".2f") if self.is_share else (value, ".3g")
        return format(scaled, f"+{form}" if sign else form)

    def varying(self) -> list[str]:
        """Return the knobs that have two values or more among pruned runs."""
        return [key for key in self.knobs if len(self.values_of(key)) > 1]

    def values_of(self, knob: str) -> list[str]:
        """Return the values of a knob among pruned runs, in order."""
        found = {group.knobs.get(knob) for group in self.pruned}
        return sorted((value for value in found if value is not None), key=value_order)


def board_of(
    collected: Collected, metric: str | None = None, mode: str | None = None
) -> Leaderboard:
    """Group the completed runs and rank the groups.

    Args:
        collected: the records.
        metric: default: ``test/accuracy`` if all completed runs have it, else the objective that
            most of them have, else the metric that most of them have.
        mode: ``max`` or ``min``; default: that of the objective where it is the metric, else as
            its name says, as ``loss`` and ``accuracy`` do, else ``max``.

    Raises:
        MetricError: no completed run has the metric.
    """
    completed = [row for row in collected.rows if row.state == "completed"]
    name = chosen_metric(completed, metric)
    knobs = varied_knobs(collected)
    measured = [(row, value) for row in completed if (value := row.metric(name)) is not None]
    groups = _groups(measured, knobs, len(collected.sweeps) > 1)
    told = mode or direction(name, completed)
    mode = told or "max"
    best_first = sorted(groups, key=lambda group: _order(group, mode))
    dense = [group for group in best_first if group.is_dense]
    pruned = [group for group in best_first if not group.is_dense]
    entries = [LeaderboardRow(group, None, None) for group in dense]
    for rank, group in enumerate(pruned, start=1):
        control = _control(group, dense)
        entries.append(
            LeaderboardRow(group, rank, None if control is None else group.mean - control.mean)
        )
    prunes, unmeasured = any(row.prunes for row in collected.rows), len(completed) - len(measured)
    return Leaderboard(name, mode, knobs, tuple(entries), unmeasured, prunes, told is None)


def varied_knobs(collected: Collected) -> tuple[str, ...]:
    """Return the knobs that vary, but for the seed: those of the sweeps' files, then all others.

    The seed may have a key of its own, as ``data.seed``.

    A dense control has no ``power``; that it lacks one does not make it vary.
    """
    named = [knob for sweep in collected.sweeps for knob in sweep.knobs]
    rows = collected.rows
    keys = dict.fromkeys(key for row in rows for key in row.overrides)
    varied = [key for key in keys if _varies(key, rows)]
    seeds = {SEED, *(row.seed_key for row in rows)}
    return tuple(key for key in dict.fromkeys([*named, *varied]) if key not in seeds)


def value_order(text: str) -> tuple[bool, float, str]:
    """Return the sort key of a knob's value: numbers first, by size.

    Example:
        >>> sorted(["poly", "10", "9"], key=value_order)
        ['9', '10', 'poly']
    """
    value = as_number(text)
    return value is None, value or 0.0, text


def sample_std(values: Sequence[float]) -> float | None:
    """Return the standard deviation through n - 1, None for fewer than two values.

    ``statistics.stdev`` computes with fractions, which is slow for thousands of layers.

    Example:
        >>> sample_std([0.25, 0.75, 0.5]), sample_std([0.25])
        (0.25, None)
    """
    if len(values) < 2:
        return None
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def pareto_front(points: Sequence[tuple[float, float]], mode: str = "max") -> list[int]:
    """Return the indices of the points that no other one beats, from the sparsest down.

    A point is beaten by one that is as sparse and as good, and better in one of the two. Points
    that are equal are both on the front.

    Args:
        points: sparsity and metric of each.
        mode: whether more of the metric is better.

    Example:
        >>> pareto_front([(0.5, 0.9), (0.9, 0.8), (0.9, 0.7), (0.2, 0.9)])
        [1, 0]
    """
    sign = 1 if mode == "max" else -1
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -sign * points[i][1], i))
    front: list[int] = []
    for index in order:
        if not front:
            front.append(index)
            continue
        sparsity, value = points[front[-1]]
        if sign * points[index][1] > sign * value or points[index] == (sparsity, value):
            front.append(index)
    return front


def _varies(key: str, rows: Iterable[RunRow]) -> bool:
    found = {(knob_value(row, key), row.is_dense) for row in rows}
    return len({value for value, is_dense in found if not (value is None and is_dense)}) > 1


def _groups(
    measured: Sequence[tuple[RunRow, float]], knobs: Sequence[str], by_sweep: bool
) -> list[SeedGroup]:
    found: dict[tuple[Any, ...], list[tuple[RunRow, float]]] = {}
    for row, value in measured:
        sweep = row.sweep if by_sweep else ""
        key = (sweep, row.is_dense, *(knob_value(row, knob) for knob in knobs))
        found.setdefault(key, []).append((row, value))
    groups = []
    for (sweep, is_dense, *values), members in found.items():
        rows, metrics = zip(*members, strict=True)
        groups.append(
            SeedGroup(dict(zip(knobs, values, strict=True)), sweep, is_dense, rows, metrics)
        )
    return groups


def _order(group: SeedGroup, mode: str) -> tuple[float, float, list[Any]]:
    # As good: the sparser one, then by the values of the knobs.
    values = [value_order(value or "") for value in group.knobs.values()]
    return -group.mean if mode == "max" else group.mean, -(group.sparsity or 0.0), values


def _control(group: SeedGroup, dense: Sequence[SeedGroup]) -> SeedGroup | None:
    def common(control: SeedGroup) -> int:
        same = sum(control.knobs[key] == value for key, value in group.knobs.items())
        return same + (control.sweep == group.sweep)

    return max(dense, key=common, default=None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
