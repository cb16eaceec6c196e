"""Files of the report: written beside and renamed; the table of all runs as CSV."""

import csv
import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coreai_opt.report.records import Collected, RunRow, mapping
from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.text import first_line, run_name
from coreai_opt.report.values import knob_value

FIXED = ("sweep", "run", "folder", "status", "seed", "config_hash")
NUMBERS = (
    "sparsity_target",
    "sparsity_achieved",
    "sparsity_of_all_weights",
    "parameters_total",
    "parameters_nonzero",
    "compression",
    "operations_dense",
    "operations_effective",
    "speedup",
    "wall_seconds",
)
NUMBERS_OF_ANY = ("parameters_total", "wall_seconds")
LAST = ("started", "git_sha", "git_changes", "error_type", "error_message")


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it: a reader never sees half of one."""
    # A file name may hold bytes that are no text; the page shows it escaped.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def link_to(folder: Path, report: Path) -> str:
    """Return the link from a page to a folder, relative and percent-encoded.

    Example:
        >>> link_to(Path("/s/a b=1"), Path("/s")), link_to(Path("/s"), Path("/s/report"))
        ('a%20b%3D1/', '../')
    """
    relative = os.path.relpath(folder.resolve(), report.resolve())
    return f"{quote(os.fsencode(relative))}/"


def results_csv(collected: Collected, board: Leaderboard) -> str:
    """Return a row for each run in any state, and for each that is still to come."""
    rows = collected.rows
    metrics = sorted({name for row in rows for name in mapping(row.record.get("metrics"))})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = NUMBERS if board.prunes else NUMBERS_OF_ANY
    writer.writerow([*FIXED, *board.knobs, *metrics, *numbers, *LAST])
    for row in rows:
        values = _numbers(row)
        writer.writerow(
            [
                *(row.sweep, run_name(row, collected), row.folder, row.state, row.seed),
                row.record.get("config_hash"),
                *(knob_value(row, knob) for knob in board.knobs),
                *(row.metric(name) for name in metrics),
                *(values[name] for name in numbers),
                *_last(row),
            ]
        )
    for point in collected.pending:
        knobs = [point.values.get(knob) for knob in board.knobs]
        blank = [None] * (len(metrics) + len(numbers) + len(LAST))
        fixed = [point.sweep, point.folder, None, "pending", point.values.get("seed"), None]
        writer.writerow([*fixed, *knobs, *blank])
    return text.getvalue()


def _numbers(row: RunRow) -> dict[str, Any]:
    parameters = mapping(row.record.get("parameters"))
    operations = mapping(row.record.get("operations"))
    values = (
        *(row.target, row.achieved, row.sparsity),
        *(parameters.get("total"), parameters.get("nonzero"), row.compression),
        *(operations.get("dense"), operations.get("effective"), row.speedup),
        row.seconds,
    )
    return dict(zip(NUMBERS, values, strict=True))


def _last(row: RunRow) -> list[Any]:
    git, (kind, message, _) = mapping(row.record.get("git")), row.error
    started = row.record.get("started")
    return [started, git.get("sha"), git.get("changes"), kind, first_line(message)]
