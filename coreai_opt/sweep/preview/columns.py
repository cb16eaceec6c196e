"""Columns of the preview's table, fitted to the width of a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

BETWEEN = 3  # characters between two columns


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        cells: its text in each row.
        is_knob: whether it is a knob with its values.
        is_right: whether it is aligned to the right.
    """

    name: str
    cells: tuple[str, ...]
    is_knob: bool = False
    is_right: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.name, *self.cells)))

    @property
    def common(self) -> str | None:
        """The one value of its cells, empty ones aside; None where they differ."""
        found = {cell for cell in self.cells if cell}
        return found.pop() if len(found) == 1 and len(self.cells) > 1 else None


def width_of(columns: Sequence[Column]) -> int:
    """Return how wide a table of these columns is."""
    return sum(column.width for column in columns) + BETWEEN * (len(columns) - 1)


def fitted(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Return columns that fit a width, and sentences that replace the others.

    In this order, as far as needed: a sentence replaces a column with one value, from the right on;
    knobs lose the path before their last part; all knobs share a column.

    Example:
        >>> columns = [Column("optimizer.lr", ("0.1", "0.2"), True), Column("steps", ("9", "9"))]
        >>> [column.name for column in fitted(columns, 80)[0]]
        ['optimizer.lr', 'steps']
        >>> kept, said = fitted(columns, 12)
        >>> [column.name for column in kept], said
        (['optimizer.lr'], ['steps: 9'])
        >>> [column.name for column in fitted(columns, 8)[0]]
        ['lr']
    """
    kept, said = list(columns), list[str]()
    for column in reversed(columns):
        if width_of(kept) > width and column.common and not column.is_knob:
            kept.remove(column)
            said.insert(0, f"{column.name}: {column.common}")
    if width_of(kept) > width:
        kept = [replace(one, name=short(one.name, kept)) if one.is_knob else one for one in kept]
    if width_of(kept) > width and sum(column.is_knob for column in kept) > 1:
        kept = _joined(kept)
    return kept, said


def short(name: str, columns: Sequence[Column]) -> str:
    """Return the last part of a key, all of it where another one ends so too."""
    last = name.rpartition(".")[2]
    others = [one.name.rpartition(".")[2] for one in columns if one.is_knob and one.name != name]
    return name if last in others else last


def _joined(columns: Sequence[Column]) -> list[Column]:
    knobs = [column for column in columns if column.is_knob]
    rows = zip(*(column.cells for column in knobs), strict=True)
    texts = (
        " ".join(f"{knob.name}={cell}" for knob, cell in zip(knobs, row, strict=True) if cell)
        for row in rows
    )
    joined = Column("setting", tuple(texts), is_knob=True)
    first = columns.index(knobs[0])
    rest = [column for column in columns if not column.is_knob]
    return [*rest[:first], joined, *rest[first:]]
