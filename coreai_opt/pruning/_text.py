"""Tables as plain text."""

from io import StringIO

from rich.console import Console
from rich.table import Table

__all__ = ["as_text"]


def as_text(table: Table) -> str:
    """Return a table as text without colours, as wide as it needs to be."""
    console = Console(file=StringIO(), width=10_000, color_system=None)
    console.print(table)
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")
