"""Two runs side by side, in the terminal and as data of the page."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from coreai_opt.report.comparing.difference import (
    Difference,
    ValuePair,
    config_texts,
    environment_texts,
    run_numbers,
)
from coreai_opt.report.records import Collected
from coreai_opt.report.text import run_name, safe_text


def print_difference(console: Console, shown: Difference, names: Sequence[str]) -> None:
    """Print two runs side by side.

    Args:
        console: to print to.
        shown: their difference.
        names: what each is called.
    """
    table = _table("metric", [*names, "difference"], numbers=True)
    for one in shown.metrics:
        numbers = ["" if value is None else f"{value:.6g}" for value in (one.one, one.two)]
        differ = "" if one.difference is None else f"{one.difference:+.4g}"
        table.add_row(*map(Text, (safe_text(one.name), *numbers, differ)))
    console.print(table)
    _print_values(console, "config", shown.config, names)
    _print_values(console, "environment", shown.environment, names)


def side_by_side_data(collected: Collected) -> dict[str, Any]:
    """Return what the page compares any two runs by: the keys that differ among all runs.

    Each key has its different texts once, and for each run the place of its own; -1 = not there.
    """
    rows = collected.rows
    numbers = [run_numbers(row) for row in rows]
    names = dict.fromkeys(name for one in numbers for name in one)
    return {
        "runs": [run_name(row, collected) for row in rows],
        "metrics": [
            {"name": safe_text(name), "values": [one.get(name) for one in numbers]}
            for name in names
        ],
        "config": _columns([config_texts(row) for row in rows]),
        "environment": _columns([environment_texts(row) for row in rows]),
    }


def _columns(texts: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    columns = []
    for key in dict.fromkeys(key for one in texts for key in one):
        found = [one.get(key) for one in texts]
        values = [value for value in dict.fromkeys(found) if value is not None]
        if len(values) > 1 or None in found:
            places = {value: at for at, value in enumerate(values)}
            at = [-1 if value is None else places[value] for value in found]
            columns.append(
                {"name": safe_text(key), "values": list(map(safe_text, values)), "at": at}
            )
    return columns


def _print_values(
    console: Console, what: str, pairs: Sequence[ValuePair], names: Sequence[str]
) -> None:
    if not pairs:
        console.print(Text(f"{what}: no difference"))
        return
    table = _table(what, names)
    for pair in pairs:
        table.add_row(*map(Text, (pair.key, pair.one, pair.two)))
    console.print(table)


def _table(first: str, columns: Sequence[str], numbers: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in columns:
        justify = "right" if numbers else "left"
        table.add_column(escape(safe_text(name)), justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table
