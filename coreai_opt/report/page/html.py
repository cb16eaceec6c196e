"""Page ``report.html``: one file that opens offline and requests nothing."""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from coreai_opt.report.commands import rerun_command
from coreai_opt.report.comparing.comparison import Comparison, comparison_sentences
from coreai_opt.report.comparing.side_by_side import side_by_side_data
from coreai_opt.report.comparing.table import COLUMNS, TableCell, pair_rows
from coreai_opt.report.environment import environment
from coreai_opt.report.files import link_to
from coreai_opt.report.page.charts import page_charts
from coreai_opt.report.page.made import Report
from coreai_opt.report.records import STATES, Collected, Pending, RunRow
from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.terminal import (
    SIZES,
    assumed_sentence,
    board_patterns,
    entry_cells,
    leaderboard_columns,
    size_cells,
)
from coreai_opt.report.text import counts_sentence, error_line, run_name, safe_text
from coreai_opt.report.values import as_number, knob_value

ASSETS = resources.files("coreai_opt.report") / "assets"
STATUSES = (*STATES, "pending")


def report_html(
    made: Report,
    out: Path | None = None,
    knobs: tuple[str, ...] = (),
    version: str = "",
    troubles: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        made: the report.
        out: the folder that it will lie in; links to run directories are relative to it. None = it
            is served, without links.
        knobs: first axes of the heat map.
        version: of a page that is served, which asks for a newer one; empty for a file.
        troubles: sentences on wishes that cannot be fulfilled yet.
    """
    templates = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    collected, board = made.collected, made.board
    charts, data = page_charts(collected, board, knobs, made.mattered)
    data["pair"] = side_by_side_data(collected)
    names = ["report.js", "pair.js", *(["live.js"] if version else [])]
    library, script = get_plotlyjs(), "\n".join(map(_asset, names))
    return templates.from_string(_asset("report.html")).render(
        title=safe_text(", ".join(sweep.name for sweep in collected.sweeps)),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        counts=counts_sentence(collected),
        metric=safe_text(board.metric),
        best="largest" if board.mode == "max" else "smallest",
        warnings=[*troubles, *made.warnings],
        version=version,
        unmeasured=board.unmeasured,
        prunes=board.prunes,
        assumed=assumed_sentence(board) if board.is_mode_assumed else "",
        leaderboard=_leaderboard(board),
        patterns=board_patterns(board),
        charts=charts,
        comparison=_comparison(made.pairs, board),
        runs=_runs(out, collected, board),
        failures=_failures(out, collected),
        pending=[safe_text(" ".join(point.overrides)) for point in collected.pending],
        unreadable=[
            (safe_text(str(bad.path)), safe_text(bad.reason)) for bad in collected.unreadable
        ],
        facts=environment(collected.rows),
        style=Markup(_asset("report.css")),
        data=Markup(_embedded(data)),
        # Only our two scripts may run, whatever text the page holds.
        allowed=" ".join(f"'sha256-{_digest(text)}'" for text in (library, script)),
        library=Markup(library),
        script=Markup(script),
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _embedded(data: Any) -> str:
    """Return JSON that nothing in it can end the script element of."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _leaderboard(board: Leaderboard) -> dict[str, Any]:
    columns = [(safe_text(name), not is_text) for name, is_text in leaderboard_columns(board)]
    rows = []
    for entry in board.entries:
        group = entry.group
        sizes = [entry.delta, group.achieved, group.sparsity, group.compression, group.speedup]
        spread = [group.seeds, group.mean, group.std]
        spread += sizes if board.prunes else []
        texts = entry_cells(board, entry)
        # Text columns come first, sorted by their text, except for the rank.
        keys = [str(entry.rank or 0), *texts[1 : len(texts) - len(spread)]]
        keys += ["" if value is None else repr(float(value)) for value in spread]
        rows.append((entry.rank is None, list(zip(texts, keys, strict=True))))
    return {"columns": columns, "rows": rows}


def _comparison(pairs: Comparison | None, board: Leaderboard) -> dict[str, Any]:
    columns = [(name, not is_text) for name, is_text in COLUMNS]
    if pairs is None:
        sentence = "Not made: scipy is not installed: pip install 'hydra-coreai-opt[report]'"
        return {"columns": columns, "rows": [], "sentences": [sentence]}
    sentences = list(comparison_sentences(pairs))
    return {"columns": columns, "rows": pair_rows(pairs, board), "sentences": sentences}


def _runs(out: Path | None, collected: Collected, board: Leaderboard) -> dict[str, Any]:
    by_sweep = len(collected.sweeps) > 1
    names = ["seed", board.metric, *(SIZES if board.prunes else ()), "seconds"]
    columns = [("status", False), *([("sweep", False)] if by_sweep else [])]
    columns += [(safe_text(knob), False) for knob in board.knobs]
    columns += [(safe_text(name), True) for name in names]
    rows: list[dict[str, Any]] = [
        {
            "name": run_name(row, collected),
            "link": None if out is None else link_to(row.folder, out),
            "status": row.state,
            "cells": _run_cells(row, board, by_sweep),
        }
        for row in collected.rows
    ]
    rows += [_pending_row(point, board, by_sweep) for point in collected.pending]
    found = {row["status"] for row in rows}
    statuses = [status for status in STATUSES if status in found]
    return {"columns": columns, "rows": rows, "statuses": statuses}


def _run_cells(row: RunRow, board: Leaderboard, by_sweep: bool) -> list[TableCell]:
    value, seconds = row.metric(board.metric), row.seconds
    sizes = (row.achieved, row.sparsity, row.compression, row.speedup)
    numbers = [
        (board.show(value), value),
        *(zip(size_cells(row), sizes, strict=True) if board.prunes else ()),
        ("" if seconds is None else f"{seconds:,.1f}", seconds),
    ]
    texts = [*([row.sweep] if by_sweep else []), *(knob_value(row, k) for k in board.knobs)]
    return [
        *(_text_cell(text) for text in (*texts, row.seed)),
        *((text, "" if number is None else repr(number)) for text, number in numbers),
    ]


def _pending_row(point: Pending, board: Leaderboard, by_sweep: bool) -> dict[str, Any]:
    sweeps = [point.sweep] if by_sweep else []
    texts = [*sweeps, *(point.values.get(knob) for knob in (*board.knobs, "seed"))]
    cells = [*map(_text_cell, texts), *[("", "")] * (6 if board.prunes else 2)]
    name = safe_text(point.folder)
    return {"name": name, "link": None, "status": "pending", "cells": cells}


def _text_cell(text: str | None) -> TableCell:
    shown = safe_text(text or "")
    value = as_number(text)
    return shown, shown if value is None else repr(value)


def _failures(out: Path | None, collected: Collected) -> list[dict[str, str | None]]:
    return [
        {
            "name": run_name(row, collected),
            "link": None if out is None else link_to(row.folder, out),
            "error": error_line(row),
            "command": safe_text(rerun_command(row.record, row.folder)),
            "trace": "\n".join(map(safe_text, row.error[2].splitlines())),
        }
        for row in collected.rows
        if row.state == "failed"
    ]
