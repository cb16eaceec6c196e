"""Parallel coordinates: an axis for each varying knob and one for the metric, a line a group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from coreai_opt.report.formatting import evenly
from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.values import as_number

MAX_LINES = 300
# A knob of more values than that has a scale; of fewer each value has a place of its own.
MAX_PLACES = 12
TICKS = 5


@dataclass(frozen=True)
class Axis:
    """An axis from 0 (below) to 1 (above), with texts at some places."""

    name: str
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A group: where it crosses each axis, None where it has no such knob."""

    label: str
    at: list[float | None]
    mean: float


@dataclass(frozen=True)
class Parallel:
    """Lines over axes.

    Attributes:
        axes: the knobs, and the metric last, whose better end is above.
        lines: the worst first, so that better ones lie over them.
        total: number of groups; of more than ``MAX_LINES`` so many are chosen evenly by rank.
    """

    axes: list[Axis]
    lines: list[Line]
    total: int


def parallel(board: Leaderboard) -> Parallel | None:
    """Return lines over the varying knobs and the metric, None where there is nothing to see."""
    knobs, groups = board.varying(), board.pruned
    if not knobs or len(groups) < 2:
        return None
    scales = [_scale(board.values_of(knob)) for knob in knobs]
    low, high = min(group.mean for group in groups), max(group.mean for group in groups)
    flipped = board.mode == "min"
    marks = _marks(low, high)
    ticks = [(1 - at if flipped else at, board.show(value)) for at, value in marks]
    axes = [Axis(knob, ticks) for knob, (_, ticks) in zip(knobs, scales, strict=True)]
    axes.append(Axis(board.metric, ticks))
    lines = []
    for group in reversed(evenly(groups, MAX_LINES)):
        values = [group.knobs.get(knob) for knob in knobs]
        places = [places for places, _ in scales]
        at = [place.get(value or "") for value, place in zip(values, places, strict=True)]
        height = _share(group.mean, low, high)
        lines.append(Line(group.label, [*at, 1 - height if flipped else height], group.mean))
    return Parallel(axes, lines, len(groups))


def _scale(values: Sequence[str]) -> tuple[dict[str, float], list[tuple[float, str]]]:
    """Return the place of each value of a knob, and the ticks of its axis."""
    numbers = [number for value in values if (number := as_number(value)) is not None]
    if len(values) <= MAX_PLACES or len(numbers) < len(values):
        places = {value: at / max(1, len(values) - 1) for at, value in enumerate(values)}
        return places, [(places[value], value) for value in evenly(values, MAX_PLACES)]
    low, high = min(numbers), max(numbers)
    # Numbers that were drawn over orders of magnitude were drawn by their logarithm.
    is_log = low > 0 and high / low >= 100
    ends = (math.log10(low), math.log10(high)) if is_log else (low, high)
    scaled = [math.log10(number) if is_log else number for number in numbers]
    places = {value: _share(at, *ends) for value, at in zip(values, scaled, strict=True)}
    marks = _marks(*ends)
    return places, [(at, f"{10**value if is_log else value:.3g}") for at, value in marks]


def _marks(low: float, high: float) -> list[tuple[float, float]]:
    if low == high:
        return [(0.5, low)]
    shares = [at / (TICKS - 1) for at in range(TICKS)]
    return [(share, low + share * (high - low)) for share in shares]


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if low == high else (value - low) / (high - low)
