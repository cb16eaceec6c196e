"""The command ``trunks``: what is in a store of trunks, and removing it."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coreai_opt.warmup.upkeep import Entry, Pruned, entries, prune

__all__ = ["main"]

ROOT = Path("multirun", "trunks")
DAY_S = 86400.0
SPANS = ((DAY_S, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
WRONG, NOT_REMOVED = 1, 2


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, and exits with 1."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(WRONG)


def main(words: list[str] | None = None) -> None:
    """List or remove the trunks of a store.

    Exit codes: 1 for wrong arguments or a store that cannot be read, 2 when something could not be
    removed.

    Args:
        words: the arguments; default: those of the command line.
    """
    parser = _parser()
    arguments = parser.parse_args(words)
    root: Path = arguments.root
    try:
        found = entries(root)
        if arguments.command == "list":
            _list(root, found)
        else:
            _prune(parser, root, found, arguments)
    except OSError as error:
        parser.error(f"{str(root)!r} cannot be read: {error.strerror or error}")


def _parser() -> Parser:
    parser = Parser(prog=Path(sys.argv[0]).stem, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|prune")
    shown = commands.add_parser("list", help="what is in the store, newest first")
    pruned = commands.add_parser("prune", help="remove trunks, and what dead makers left behind")
    for command in (shown, pruned):
        command.add_argument("--root", type=Path, default=ROOT, help=f"default: {ROOT}")
    pruned.add_argument("--all", action="store_true", help="all trunks")
    pruned.add_argument("--id", nargs="+", action="extend", metavar="ID", help="these trunks")
    pruned.add_argument("--older-than-days", type=float, metavar="N", help="of them, the older")
    pruned.add_argument("--force", action="store_true", help="also those that are being made")
    pruned.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    return parser


def _list(root: Path, found: list[Entry]) -> None:
    if not found:
        _print_empty(root)
        return
    table = Table("id", title=Text(f"trunks in {str(root)!r}"))
    for column in ("steps", "seconds to make", "size", "age"):
        table.add_column(column, justify="right")
    for column in ("made by", "state"):
        table.add_column(column, overflow="fold")
    for entry in found:
        trunk = entry.trunk
        made = [f"{trunk.steps:,}", f"{trunk.seconds:,.1f}"] if trunk else ["", ""]
        cells = [entry.id, *made, _size(entry.bytes), _age(entry.age_s), _maker(entry), entry.state]
        table.add_row(*(Text(cell) for cell in cells))
    # A pipe has no width: there, lines are as long as they get.
    Console(
        markup=False, emoji=False, width=None if sys.stdout.isatty() else 240, highlight=False
    ).print(table)


def _prune(parser: Parser, root: Path, found: list[Entry], arguments: argparse.Namespace) -> None:
    ids, days = arguments.id, arguments.older_than_days
    if not arguments.all and ids is None and days is None:
        parser.error("nothing is selected; give --older-than-days N, --id ID, or --all")
    if arguments.all and ids is not None:
        parser.error("--all and --id contradict each other; give one of them")
    if days is not None and not days >= 0:
        parser.error(f"--older-than-days is {days:g}; allowed: 0 or more")
    if not found:
        _print_empty(root)
        return
    known = [entry.id for entry in found]
    for id in ids or []:
        if id not in known:
            parser.error(f"no trunk {id!r} in {str(root)!r}; there are: {', '.join(known)}")

    def selected(entry: Entry) -> bool:
        is_old = days is None or entry.age_s > days * DAY_S
        return is_old and (ids is None or entry.id in ids)

    pruned = prune(root, selected, force=arguments.force, dry_run=arguments.dry_run)
    _print_pruned(pruned, arguments.dry_run)
    if pruned.failed:
        sys.exit(NOT_REMOVED)


def _print_pruned(pruned: Pruned, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for entry in pruned.removed:
        print(f"{would}removed: {entry.id} ({entry.state}, {_size(entry.bytes)})")
    for entry in pruned.kept:
        hint = "" if entry.maker is None else "; --force removes it"
        print(f"kept: {entry.id} ({_maker(entry)}){hint}")
    for sentence in pruned.failed:
        print(f"error: {sentence}", file=sys.stderr)
    count = len(pruned.removed)
    print(f"{count} {'trunk' if count == 1 else 'trunks'}, {_size(pruned.bytes)} {would}freed")


def _print_empty(root: Path) -> None:
    what = "has no trunks" if root.exists() else "is not there: no sweep has made a trunk in it"
    print(f"{str(root)!r} {what}")


def _maker(entry: Entry) -> str:
    if entry.trunk is not None and entry.state == "ok":
        return entry.trunk.made_by
    if entry.maker is not None:
        of = "" if entry.maker.total_steps is None else f" of {entry.maker.total_steps:,}"
        where = f"process {entry.maker.pid} on {entry.maker.host}"
        return f"{where}, step {entry.maker.step:,}{of}"
    return entry.reason or ("being written" if entry.state == "claimed" else "")


def _size(count: int) -> str:
    for size, unit in SIZES:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _age(seconds: float) -> str:
    for span, unit in SPANS:
        if seconds >= 2 * span:
            return f"{seconds / span:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
