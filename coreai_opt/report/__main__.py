"""Command ``report``: leaderboard, ``results.csv``, ``report.html`` and figures of sweeps."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from rich.console import Console

from coreai_opt.report.collect import SWEEP_FILE, collect
from coreai_opt.report.comparison import Comparison, comparison
from coreai_opt.report.files import results_csv, write_file
from coreai_opt.report.importance import Importance, importance
from coreai_opt.report.metric_choice import MetricError
from coreai_opt.report.protocol import protocol_warnings
from coreai_opt.report.records import Collected
from coreai_opt.report.tables import Leaderboard, board_of
from coreai_opt.report.terminal import print_report
from coreai_opt.report.text import safe_text

T = TypeVar("T")
WIDE = 2000  # a pipe has no width: there, lines are as long as they get
MISSING = "is not installed: pip install 'hydra-coreai-opt[report]'"


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line, with exit code 1."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {safe_text(message)}", file=sys.stderr)
        sys.exit(1)


def main(words: list[str] | None = None, name: str = "report") -> None:
    """Report on sweeps.

    Exit codes: 0 for a report, also of failed and unfinished runs; 1 for wrong arguments,
    directories without a record, and files that cannot be written.

    Args:
        words: the arguments; default: those of the command line.
        name: how the command is called.
    """
    parser = _parser(name)
    arguments = parser.parse_args(words)
    roots: list[Path] = arguments.sweep
    for root in roots:
        if not root.is_dir():
            what = "is no directory" if root.exists() else "there is no such directory"
            parser.error(f"{str(root)!r}: {what}; allowed: the directory of a sweep or a run")
    collected = collect(roots)
    if not (collected.rows or collected.pending or collected.unreadable):
        named = ", ".join(repr(str(root)) for root in roots)
        parser.error(
            f"there is no record in {named}; allowed: the directory of a sweep or of a run, with a "
            f"result.json in it or up to four levels below, or a {SWEEP_FILE}"
        )
    try:
        board = board_of(collected, arguments.metric, arguments.mode)
        _check_knobs(parser, arguments.knobs, board)
    except MetricError as error:
        parser.error(str(error))
    warnings = protocol_warnings(board)
    width = None if sys.stdout.isatty() else WIDE
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    sentences: list[str] = []
    pairs = _if_installed(lambda: comparison(board), "comparison", sentences)
    mattered = _if_installed(lambda: importance(board), "importance of knobs", sentences)
    print_report(console, collected, board, warnings, pairs, mattered)
    out: Path = arguments.out or (roots[0] if len(roots) == 1 else Path("report"))
    try:
        written = _write(out, collected, board, warnings, pairs, mattered, arguments)
    except OSError as error:
        parser.error(f"{str(out)!r} cannot be written to: {error.strerror or error}")
    for sentence in (*sentences, *written):
        print(safe_text(sentence))


def _parser(name: str) -> Parser:
    parser = Parser(prog=name, description=__doc__)
    parser.add_argument(
        "sweep", nargs="+", type=Path, metavar="SWEEP_DIR", help="directory of a sweep, or of a run"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where report.html, results.csv and figures/ go; default: SWEEP_DIR, and report/ for "
        "several of them",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what runs are compared by; default: test/accuracy if all completed runs have it, "
        "else the objective",
    )
    parser.add_argument(
        "--mode",
        choices=("max", "min"),
        help="whether more of it is better; default: as the objective, or as its name says",
    )
    parser.add_argument(
        "--knobs",
        type=_two_knobs,
        default=(),
        metavar="X,Y",
        help="the knobs that the heat map begins with; default: total_iters,power",
    )
    parser.add_argument("--no-figures", action="store_true", help="no PNG and SVG files")
    return parser


def _two_knobs(text: str) -> tuple[str, ...]:
    knobs = tuple(part.strip() for part in text.split(","))
    if len(knobs) != 2 or not all(knobs) or knobs[0] == knobs[1]:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: two knobs, as in total_iters,power")
    return knobs


def _check_knobs(parser: Parser, knobs: tuple[str, ...], board: Leaderboard) -> None:
    varying = board.varying()
    for knob in knobs:
        if knob not in varying:
            allowed = ", ".join(varying) or "none, no knob varies among the completed runs"
            parser.error(f"--knobs: {knob!r} does not vary; allowed: {allowed}")


def _write(
    out: Path,
    collected: Collected,
    board: Leaderboard,
    warnings: list[str],
    pairs: Comparison | None,
    mattered: Importance | None,
    arguments: argparse.Namespace,
) -> list[str]:
    """Write what the installed packages allow, and return a sentence on each."""
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "results.csv", results_csv(collected, board))
    sentences = [f"written: {out / 'results.csv'}"]
    try:
        from coreai_opt.report.html import report_html
    except ModuleNotFoundError as error:
        sentences.append(f"no report.html: {_package(error)} {MISSING}")
    else:
        page = report_html(out, collected, board, warnings, arguments.knobs, pairs, mattered)
        write_file(out / "report.html", page)
        sentences.append(f"written: {out / 'report.html'}")
    if arguments.no_figures:
        return sentences
    try:
        from coreai_opt.report.static import draw_figures
    except ModuleNotFoundError as error:
        return [*sentences, f"no figures: {_package(error)} {MISSING}"]
    drawn = draw_figures(out / "figures", collected, board, arguments.knobs, mattered)
    return [*sentences, f"written: {out / 'figures'} ({', '.join(drawn) or 'nothing to draw yet'})"]


def _if_installed(make: Callable[[], T], what: str, sentences: list[str]) -> T | None:
    try:
        return make()
    except ModuleNotFoundError as error:
        sentences.append(f"no {what}: {_package(error)} {MISSING}")
        return None


def _package(error: ModuleNotFoundError) -> str:
    package = str(error.name).partition(".")[0]
    if package == "coreai_opt":
        raise error  # ours is there: this is a fault of ours
    return package


if __name__ == "__main__":
    main()
