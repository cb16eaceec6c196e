"""Tables and lists as plain text."""

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table

__all__ = ["as_text", "listed"]

LISTED = 3  # names that a message says one by one


def as_text(table: Table) -> str:
    """Return a table as text without colours, as wide as it needs to be."""
    console = Console(markup=False, emoji=False, file=StringIO(), width=10_000, color_system=None)
    console.print(table)
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def listed(names: Sequence[str]) -> str:
    """Return names for a message, in their order and not too many.

    Example:
        >>> listed(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(repr, names[:LISTED])) + more
