"""Plain text for messages: tables, and lists of names."""

from collections.abc import Callable, Collection
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

LISTED = 3  # names that a message lists


def as_text(table: "Table") -> str:
    """Return a table as text without colours, as wide as it needs to be."""
    from rich.console import Console  # errors need none of it

    console = Console(markup=False, emoji=False, file=StringIO(), width=10_000, color_system=None)
    console.print(table)
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def listed(names: Collection[Any], shown: Callable[[Any], str] = repr, between: str = ", ") -> str:
    """Return the first names for a message, and how many more there are.

    Args:
        names: in order.
        shown: what is written for each.
        between: what stands between two.

    Example:
        >>> listed(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return between.join(map(shown, islice(names, LISTED))) + more
