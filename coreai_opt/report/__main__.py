"""Command ``report``: leaderboard, ``results.csv``, ``report.html`` and figures of sweeps."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from coreai_opt.report.arguments import Parser, check_together, knobs_trouble, report_parser
from coreai_opt.report.collect import SWEEP_FILE, collect
from coreai_opt.report.comparing.difference import difference
from coreai_opt.report.comparing.side_by_side import print_difference
from coreai_opt.report.files import results_csv, write_file
from coreai_opt.report.metric_choice import MetricError
from coreai_opt.report.page.made import MISSING, Report, make_report, missing_package
from coreai_opt.report.records import Collected
from coreai_opt.report.terminal import print_report
from coreai_opt.report.text import safe_text

WIDE = 2000  # a pipe has no width: there, lines are as long as they get


def main(words: list[str] | None = None, name: str = "report") -> None:
    """Report on sweeps.

    Exit codes: 0 for a report, also of failed and unfinished runs, and for ``--live`` that Ctrl-C
    has ended; 1 for wrong arguments, directories without a record, and files that cannot be
    written.

    Args:
        words: the arguments; default: those of the command line.
        name: how the command is called.
    """
    parser = report_parser(name, str(__doc__))
    arguments = parser.parse_args(words)
    check_together(parser, arguments)
    for root in arguments.sweep:
        if not root.is_dir():
            what = "is no directory" if root.exists() else "there is no such directory"
            parser.error(f"{str(root)!r}: {what}; allowed: the directory of a sweep or a run")
    if arguments.live:
        _serve(parser, arguments)
    elif arguments.compare:
        _compare(parser, arguments.sweep)
    else:
        _report(parser, arguments)


def _report(parser: Parser, arguments: argparse.Namespace) -> None:
    roots: list[Path] = arguments.sweep
    collected = _collected(parser, roots)
    try:
        made = make_report(collected, arguments.metric, arguments.mode)
    except MetricError as error:
        parser.error(str(error))
    if (trouble := knobs_trouble(arguments.knobs, made.board)) is not None:
        parser.error(trouble)
    print_report(_console(), made)
    out: Path = arguments.out or (roots[0] if len(roots) == 1 else Path("report"))
    try:
        written = _write(out, made, arguments)
    except OSError as error:
        parser.error(f"{str(out)!r} cannot be written to: {error.strerror or error}")
    for sentence in (*made.sentences, *written):
        print(safe_text(sentence))


def _serve(parser: Parser, arguments: argparse.Namespace) -> None:
    try:
        from coreai_opt.report.page.live import Live, serve
    except ModuleNotFoundError as error:
        parser.error(f"--live: {missing_package(error)} {MISSING}")
    live = Live(tuple(arguments.sweep), arguments.metric, arguments.mode, arguments.knobs)
    try:
        serve(live, arguments.port)
    except OSError as error:
        parser.error(f"--port: {arguments.port} cannot be listened on: {error.strerror or error}")


def _compare(parser: Parser, folders: list[Path]) -> None:
    rows = []
    for folder in folders:
        found = _collected(parser, [folder])
        if len(found.rows) != 1:
            count = f"{len(found.rows):,} readable records"
            parser.error(f"--compare: {str(folder)!r} has {count}; allowed: the directory of a run")
        rows.append(found.rows[0])
    print_difference(_console(), difference(*rows), [str(folder) for folder in folders])


def _collected(parser: Parser, roots: list[Path]) -> Collected:
    collected = collect(roots)
    if not (collected.rows or collected.pending or collected.unreadable):
        named = ", ".join(repr(str(root)) for root in roots)
        parser.error(
            f"there is no record in {named}; allowed: the directory of a sweep or of a run, with a "
            f"result.json in it or up to four levels below, or a {SWEEP_FILE}"
        )
    return collected


def _console() -> Console:
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def _write(out: Path, made: Report, arguments: argparse.Namespace) -> list[str]:
    """Write what the installed packages allow, and return a sentence on each."""
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "results.csv", results_csv(made.collected, made.board))
    sentences = [f"written: {out / 'results.csv'}"]
    try:
        from coreai_opt.report.page.html import report_html
    except ModuleNotFoundError as error:
        sentences.append(f"no report.html: {missing_package(error)} {MISSING}")
    else:
        write_file(out / "report.html", report_html(made, out, arguments.knobs))
        sentences.append(f"written: {out / 'report.html'}")
    if arguments.no_figures:
        return sentences
    try:
        from coreai_opt.report.figures.static import draw_figures
    except ModuleNotFoundError as error:
        return [*sentences, f"no figures: {missing_package(error)} {MISSING}"]
    board, knobs = made.board, arguments.knobs
    drawn = draw_figures(out / "figures", made.collected, board, knobs, made.mattered)
    return [*sentences, f"written: {out / 'figures'} ({', '.join(drawn) or 'nothing to draw yet'})"]


if __name__ == "__main__":
    main()
