"""Numbers of the charts, for the page and the static figures alike."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from coreai_opt.config.training_length import planned_length, schedule_of
from coreai_opt.report.comparing.protocol import series_knob
from coreai_opt.report.formatting import evenly
from coreai_opt.report.records import RunRow, mapping, number
from coreai_opt.report.tables import Leaderboard, SeedGroup, pareto_front, sample_std, value_order

MAX_CURVES = 30
SAMPLES = 120
TARGET = "target_sparsity"
UNITS = {"step": "steps", "epoch": "epochs", "percent": "% of the training"}


@dataclass(frozen=True)
class ChartPoint:
    """A group by its sparsity of all weights and its metric; ``std`` is None for a single run."""

    label: str
    sparsity: float
    mean: float
    std: float | None
    runs: int


@dataclass(frozen=True)
class Accuracy:
    """The metric against the sparsity of all weights.

    Attributes:
        series: points by name of the series; a single one has the name "pruned".
        knob: the knob whose values name the series, None for a single series.
        dense: the dense controls.
        front: the points that no other beats, the sparsest last.
    """

    series: Mapping[str, list[ChartPoint]]
    knob: str | None
    dense: list[ChartPoint]
    front: list[ChartPoint]


@dataclass(frozen=True)
class HeatCell:
    """All runs at one value of each of two knobs."""

    x: str
    y: str
    mean: float
    std: float | None
    runs: int


@dataclass(frozen=True)
class ScheduleCurve:
    """Sparsity that a schedule asks for."""

    name: str
    x: list[float]
    sparsity: list[float]


@dataclass(frozen=True)
class Schedules:
    """Curves of the schedules.

    Attributes:
        unit: of x.
        curves: at most ``MAX_CURVES``.
        total: number of different curves.
        unknown: number of schedules without a curve: the config lacks their class, or the length
            of the training.
    """

    unit: str
    curves: list[ScheduleCurve]
    total: int
    unknown: int


@dataclass(frozen=True)
class LayerShare:
    """Sparsity of a layer over the runs of a group."""

    name: str
    elements: int
    mean: float
    std: float | None


def accuracy(board: Leaderboard) -> Accuracy:
    """Return the points of all groups whose sparsity has been counted."""
    knob = series_knob(board)
    series: dict[str, list[ChartPoint]] = {}
    for group in board.pruned:
        name = "pruned" if knob is None else group.knobs[knob] or "(not set)"
        if knob is None and group.sweep:
            name = group.sweep
        if (point := _point(group)) is not None:
            series.setdefault(name, []).append(point)
    for points in series.values():
        points.sort(key=lambda point: point.sparsity)
    dense = [point for group in board.dense if (point := _point(group)) is not None]
    everything = [*dense, *(point for points in series.values() for point in points)]
    places = [(round(point.sparsity, 6), point.mean) for point in everything]
    front = [everything[index] for index in reversed(pareto_front(places, board.mode))]
    return Accuracy(dict(sorted(series.items())), knob, dense, front)


def heat_knobs(board: Leaderboard, wanted: Sequence[str] = ()) -> tuple[str, str] | None:
    """Return the two knobs that a heat map begins with, None where fewer vary.

    Args:
        board: the runs.
        wanted: two knobs; default: power and total_iters, or the first varying ones.
    """
    varying = board.varying()
    if len(varying) < 2:
        return None
    if len(wanted) == 2 and set(wanted) <= set(varying):
        return wanted[0], wanted[1]
    preferred = [knob for knob in ("total_iters", "power") if knob in varying]
    x, y = [*preferred, *(knob for knob in varying if knob not in preferred)][:2]
    return x, y


def heat_only(board: Leaderboard, axes: Sequence[str]) -> dict[str, str]:
    """Return to which runs a heat map is limited at first: those of one target sparsity.

    A mean over several sparsities says little. The one that most configurations have is taken, of
    several as frequent the largest.
    """
    values = board.values_of(TARGET)
    if TARGET in axes or len(values) < 2:
        return {}
    counts = Counter(group.knobs[TARGET] for group in board.pruned)
    return {TARGET: max(values, key=lambda value: (counts[value], value_order(value)))}


def heat_cells(
    board: Leaderboard, x: str, y: str, only: Mapping[str, str] | None = None
) -> list[HeatCell]:
    """Return mean and std over all runs at each pair of values, whatever else varies.

    Args:
        board: the runs.
        x: a knob.
        y: another one.
        only: values of further knobs that runs must have.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for group in board.pruned:
        at = group.knobs.get(x), group.knobs.get(y)
        fits = all(group.knobs.get(key) == value for key, value in (only or {}).items())
        if at[0] is not None and at[1] is not None and fits:
            found.setdefault((at[0], at[1]), []).extend(group.values)
    return [
        HeatCell(*at, fmean(values), sample_std(values), len(values))
        for at, values in found.items()
    ]


def layer_shares(group: SeedGroup) -> list[LayerShare]:
    """Return the sparsity of each layer of a group, in the order of the model."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in group.rows:
        for layer in row.layers:
            share = 1 - layer.nonzero / layer.elements
            found.setdefault((layer.name, layer.elements), []).append(share)
    return [LayerShare(*key, fmean(shares), sample_std(shares)) for key, shares in found.items()]


def schedules(rows: Iterable[RunRow]) -> Schedules:
    """Return the different schedules of runs, whatever their state, as curves up to the target."""
    keys: dict[str, RunRow] = {}
    for row in rows:
        if row.config.get("schedule") is not None:
            parts = [row.config["schedule"], row.target, row.config.get("interval")]
            keys.setdefault(json.dumps(parts, sort_keys=True, default=str), row)
    settings = [(_settings(row), row, _length(row)) for row in keys.values()]
    known = [(set_, row, end) for set_, row, end in settings if end and _is_known(row)]
    units = {_interval(row) for _, row, _ in known}
    unit = units.pop() if len(units) == 1 else "percent"
    varying = _varying([set_ for set_, _, _ in known])
    known.sort(key=lambda one: [value_order(one[0].get(key, "")) for key in ("schedule", *varying)])
    curves = []
    for set_, row, end in evenly(known, MAX_CURVES):
        name = " ".join([set_["schedule"], *(f"{k}={set_[k]}" for k in varying if k in set_)])
        own = _interval(row)
        curves.append(_curve(row, name, end, 1.0 if own == unit else 100 / end))
    return Schedules(UNITS.get(unit, unit), curves, len(known), len(keys) - len(known))


def _point(group: SeedGroup) -> ChartPoint | None:
    if group.sparsity is None:
        return None
    return ChartPoint(group.label, group.sparsity, group.mean, group.std, len(group.values))


def _settings(row: RunRow) -> dict[str, str]:
    node = mapping(row.config["schedule"])
    kind = str(node.get("_target_", "?")).rpartition(".")[2]
    name = row.overrides.get("schedule") or row.choices.get("schedule") or kind
    fields = {str(key): _short(value) for key, value in node.items() if key != "_target_"}
    return {"schedule": name, **fields, "target": _short(row.target)}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _varying(settings: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for one in settings for key in one if key != "schedule")
    return [key for key in keys if len({one[key] for one in settings if key in one}) > 1]


def _is_known(row: RunRow) -> bool:
    target = row.target
    if target is None or not 0 <= target <= 1:
        return False
    return schedule_of(row.config["schedule"]) is not None


def _interval(row: RunRow) -> str:
    return str(row.config.get("interval", "step"))


def _length(row: RunRow) -> int | None:
    interval = _interval(row)
    trained = mapping(row.record.get("training"))
    if interval != "percent" and (done := number(trained.get(f"{interval}s"))):
        return int(done)
    try:
        planned = number(planned_length(row.config, interval))
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
        return None  # a config that is not one of ours
    return int(planned) if planned and planned > 0 else None


def _curve(row: RunRow, name: str, end: int, scale: float) -> ScheduleCurve:
    schedule, target = schedule_of(row.config["schedule"]), row.target
    assert schedule is not None
    assert target is not None
    stride = max(1, end // SAMPLES)
    # Where a schedule jumps the curve must, whatever the stride.
    jumps = {step + one for step in _corners(schedule) for one in (-1, 0)}
    steps = sorted({*range(0, end + 1, stride), end, *(j for j in jumps if 0 <= j <= end)})
    return ScheduleCurve(
        name,
        [round(step * scale, 4) for step in steps],
        [round(schedule.sparsity_at(step, target), 5) for step in steps],
    )


def _corners(schedule: Any) -> list[int]:
    steps = [getattr(schedule, "begin_step", None), schedule.end_step]
    return [step for step in (*steps, *getattr(schedule, "milestones", ())) if step is not None]
