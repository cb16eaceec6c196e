"""Arguments of the command ``report``, and which of them go together."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.text import safe_text


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line, with exit code 1."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {safe_text(message)}", file=sys.stderr)
        sys.exit(1)


def report_parser(name: str, description: str) -> Parser:
    """Return the parser of the command ``name``."""
    parser = Parser(prog=name, description=description)
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
    _add_other_ways(parser)
    return parser


def _two_knobs(text: str) -> tuple[str, ...]:
    knobs = tuple(part.strip() for part in text.split(","))
    if len(knobs) != 2 or not all(knobs) or knobs[0] == knobs[1]:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: two knobs, as in total_iters,power")
    return knobs


def _add_other_ways(parser: Parser) -> None:
    parser.add_argument(
        "--compare",
        action="store_true",
        help="two runs side by side: SWEEP_DIR is the directory of each; writes no files",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="serve the page on 127.0.0.1, made anew when a record changes; ends with Ctrl-C",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="port of --live, 1 to 65535; default: a free one",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 1 to 65535")
    return int(text)


def check_together(parser: Parser, arguments: argparse.Namespace) -> None:
    """Refuse options that have no meaning together."""
    given = {
        "--out": arguments.out is not None,
        "--no-figures": arguments.no_figures,
        "--metric": arguments.metric is not None,
        "--mode": arguments.mode is not None,
        "--knobs": bool(arguments.knobs),
        "--live": arguments.live,
        "--compare": arguments.compare,
    }
    files, shown = ["--out", "--no-figures"], ["--metric", "--mode", "--knobs"]
    refused = [("--live", files, "writes no files")]
    refused += [("--compare", [*files, *shown, "--live"], "shows all numbers and writes no files")]
    for option, others, why in refused:
        for other in others:
            if given[option] and given[other]:
                parser.error(f"{option} {why}; allowed: {option} without {other}")
    if arguments.port and not arguments.live:
        parser.error("--port is of the server; allowed: --port with --live")
    if arguments.compare and len(arguments.sweep) != 2:
        parser.error(
            f"--compare: {len(arguments.sweep)} given; allowed: the directories of two runs"
        )


def knobs_trouble(knobs: tuple[str, ...], board: Leaderboard) -> str | None:
    """Return why a heat map cannot begin with these knobs, None where it can."""
    varying = board.varying()
    for knob in knobs:
        if knob not in varying:
            allowed = ", ".join(varying) or "none, no knob varies among the completed runs"
            return f"--knobs: {knob!r} does not vary; allowed: {allowed}"
    return None
