"""Curves as characters: braille dots where the output takes them, else letters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Bits of the dots of a braille cell, by column and row.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800

BETWEEN_LETTERS = 16  # cells

ChartCell = tuple[str, int | None]  # a character, and the curve that it belongs to


@dataclass(frozen=True)
class TextCurve:
    """A function to draw.

    Attributes:
        label: of the curve.
        at: its value at a position from 0 to the end of the axis.
    """

    label: str
    at: Callable[[float], float]


def letter(index: int) -> str:
    """Return the mark of a curve: a, b, c, ..."""
    return chr(ord("a") + index)


def draw_curves(
    curves: Sequence[TextCurve],
    span: int,
    unit: str,
    top: float,
    width: int = 60,
    height: int = 10,
    braille: bool = True,
) -> list[list[ChartCell]]:
    """Return the lines of a chart with its axes: 0 to ``span``, and 0 to ``top``.

    Args:
        curves: each is marked by its letter where no other curve is.
        span: end of the horizontal axis, > 0.
        unit: of that axis.
        top: end of the vertical axis, > 0.
        width: cells of the plot, without the vertical axis.
        height: lines of the plot.
        braille: eight dots a cell; otherwise letters alone.

    Example:
        >>> jump = TextCurve("jump", lambda step: 0.5 if step >= 4 else 0.0)
        >>> for line in draw_curves([jump], 8, "steps", 0.5, width=16, height=2, braille=False):
        ...     print("".join(character for character, _ in line).rstrip())
          50 % |        aaaaaaaa
           0 % |aaaaaaaa
               +----------------
                0        8 steps
    """
    columns, rows = (2 * width, 4 * height) if braille else (width, height)
    values = [[curve.at(span * x / (columns - 1)) for x in range(columns)] for curve in curves]
    dots = {index: _trace(known, top, rows) for index, known in enumerate(values)}
    cells = _in_braille(dots, width, height) if braille else _in_letters(dots, width, height)
    return [*_with_scale(cells, top), *_axis(span, unit, width)]


def _trace(values: Sequence[float], top: float, rows: int) -> set[tuple[int, int]]:
    """Return the dots of a curve as column and row, with jumps joined; row 0 is the uppermost."""
    heights = [rows - 1 - round(value / top * (rows - 1)) for value in values]
    dots = set()
    for column, row in enumerate(heights):
        before = heights[max(column - 1, 0)]
        low, high = sorted((before, row))
        inner = range(low, high + 1) if high - low > 1 else (row,)
        dots |= {(column, one) for one in inner}
    return dots


def _in_letters(
    dots: dict[int, set[tuple[int, int]]], width: int, height: int
) -> list[list[ChartCell]]:
    cells: list[list[ChartCell]] = [[(" ", None)] * width for _ in range(height)]
    for index in reversed(dots):
        for column, row in dots[index]:
            cells[row][column] = (letter(index), index)
    return cells


def _in_braille(
    dots: dict[int, set[tuple[int, int]]], width: int, height: int
) -> list[list[ChartCell]]:
    bits = [[0] * width for _ in range(height)]
    owners: list[list[set[int]]] = [[set() for _ in range(width)] for _ in range(height)]
    for index, trace in dots.items():
        for column, row in trace:
            bits[row // 4][column // 2] |= DOTS[column % 2][row % 4]
            owners[row // 4][column // 2].add(index)
    cells: list[list[ChartCell]] = []
    for row in range(height):
        line: list[ChartCell] = []
        for column in range(width):
            owner = min(owners[row][column], default=None)
            line.append((chr(BLANK + bits[row][column]) if owner is not None else " ", owner))
        cells.append(line)
    _mark(cells, owners, len(dots))
    return cells


def _mark(cells: list[list[ChartCell]], owners: list[list[set[int]]], count: int) -> None:
    """Put the letter of a curve where it is alone, every few cells and at least once if it can."""
    for index in range(count):
        mine = sorted(
            (column, row)
            for row, line in enumerate(owners)
            for column, known in enumerate(line)
            if known == {index}
        )
        last = -BETWEEN_LETTERS
        for column, row in mine[len(mine) // 5 :]:
            if column - last >= BETWEEN_LETTERS:
                cells[row][column], last = (letter(index), index), column


def _with_scale(cells: list[list[ChartCell]], top: float) -> list[list[ChartCell]]:
    height = len(cells)
    marks = {0: top, height - 1: 0.0}
    if height > 6:
        marks[height // 2] = top * (1 - (height // 2) / (height - 1))
    scales = [f"{100 * marks[row]:.0f} %" if row in marks else "" for row in range(height)]
    return [[*_plain(f"{scale:>6} |"), *line] for scale, line in zip(scales, cells, strict=True)]


def _axis(span: int, unit: str, width: int) -> list[list[ChartCell]]:
    end = f"{span} {unit}"
    numbers = f"0{end:>{width - 1}}"
    return [_plain(f"{'':>6} +{'-' * width}"), _plain(f"{'':>8}{numbers}")]


def _plain(text: str) -> list[ChartCell]:
    return [(character, None) for character in text]
