"""Preview as text: a table, a chart and sentences."""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coreai_opt.report.formatting import duration, evenly
from coreai_opt.report.text import plural
from coreai_opt.sweep.preview.columns import Column, fitted
from coreai_opt.sweep.preview.curves import TextCurve, draw_curves, letter
from coreai_opt.sweep.preview.planned import SEED, PlannedGroup, Preview, label_of
from coreai_opt.sweep.preview.ramps import Ramp

MOST_ROWS, FIRST, LAST = 60, 45, 5
MOST_CURVES = 8
WIDE = 160  # columns without a terminal
WIDEST_CHART = 72
COLORS = ("cyan", "yellow", "green", "magenta", "blue", "red", "bright_cyan", "bright_yellow")


def console() -> Console:
    """Return where the preview goes; without a terminal nothing is cut to its width."""
    return Console(
        markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDE
    )


def say(out: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is."""
    out.print(text, soft_wrap=not out.is_terminal, style=style)


def print_preview(preview: Preview) -> None:
    """Print everything that is known."""
    out = console()
    say(out, preview.title)
    table, common = run_table(preview, out.width)
    out.print(table)
    if common:
        say(out, f"the same in all rows: {'; '.join(common)}")
    if (hidden := len(preview.groups) - FIRST - LAST) > 0 and len(preview.groups) > MOST_ROWS:
        say(out, f"{hidden} rows are not shown; the first {FIRST} and the last {LAST} are")
    _print_charts(out, preview)
    for sentence in [*preview.sentences, total_time(preview)]:
        say(out, sentence)
    for kind, sentences in (("warning", preview.warnings), ("hint", preview.hints)):
        for sentence in sentences:
            say(out, f"{kind}: {sentence}", "yellow" if kind == "warning" else None)


def run_table(preview: Preview, width: int = WIDE) -> tuple[Table, list[str]]:
    """Return a table with a row a setting, and sentences for columns that do not fit.

    Args:
        preview: the runs; those that differ in their seed alone share a row.
        width: characters of a line.
    """
    columns, common = fitted(_columns(preview), width)
    table = Table(show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(
            Text(column.name),
            justify="right" if column.is_right else "left",
            overflow="fold",
            no_wrap=not column.is_knob and column.name != "state",
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table, common


def _columns(preview: Preview) -> list[Column]:
    shown = list(_shown(preview.groups))
    knobs = [knob for knob in preview.knobs if knob != SEED]
    groups = [group for _, group in shown]

    def column(name: str, cell: Callable[[PlannedGroup], str], **kind: bool) -> Column:
        return Column(name, tuple("" if one is None else cell(one) for one in groups), **kind)

    columns = [Column("#", tuple(number for number, _ in shown), is_right=True)]
    for knob in knobs:
        values = ("" if one is None else one.varied.get(knob, "") for one in groups)
        columns.append(Column(knob, tuple(values), is_knob=True))
    if SEED in preview.knobs:
        columns.append(column("seeds", lambda one: ranges(one.seeds)))
    columns.append(column("state", _states))
    numbers = {"target": _target, "steps": _steps, "time": _time}
    if preview.prunes:
        columns.append(column("ramp", _ramp))
    else:
        del numbers["target"]
        if all(run.length.steps is None for run in preview.runs):
            del numbers["steps"]
    return [*columns, *(column(name, cell, is_right=True) for name, cell in numbers.items())]


def total_time(preview: Preview) -> str:
    """Return how much there is to run, and how long that takes where records tell."""
    count, total = len(preview.to_run), len(preview.runs)
    seconds, unknown = preview.seconds
    if not count:
        return f"to run: 0 of {total}"
    what = f"to run: {count} of {total}"
    if unknown == count:
        return f"{what}; how long that takes is unknown, no earlier record tells"
    records = plural(preview.earlier, "earlier record")
    about = f"about {duration(seconds)}" + (" one after the other" if count > 1 else "")
    rest = f" and an unknown time for {unknown} of them" if unknown else ""
    return f"{what}; {about}{rest}, by {records} of {preview.of_what}"


def ranges(seeds: Sequence[str]) -> str:
    """Return seeds with runs of consecutive ones joined.

    Example:
        >>> ranges(["1", "2", "3", "7", "9", "10"])
        '1-3,7,9,10'
        >>> ranges(["5", "1"])
        '5,1'
    """
    parts: list[list[str]] = []
    for seed in seeds:
        follows = parts and seed.isdigit() and parts[-1][-1].isdigit()
        if follows and int(seed) == int(parts[-1][-1]) + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    texts = [f"{one[0]}-{one[-1]}" if len(one) > 2 else ",".join(one) for one in parts]
    return ",".join(texts)


def _shown(groups: Sequence[PlannedGroup]) -> list[tuple[str, PlannedGroup | None]]:
    numbered = [(str(number), group) for number, group in enumerate(groups, start=1)]
    if len(numbered) <= MOST_ROWS:
        return [*numbered]
    return [*numbered[:FIRST], ("...", None), *numbered[-LAST:]]


def _states(group: PlannedGroup) -> str:
    if len(group.runs) == 1:
        how = group.runs[0].standing
        return how.text if how.step is None else f"{how.text} at step {how.step}"
    return ", ".join(f"{count} {text}" for text, count in group.states.items())


def _ramp(group: PlannedGroup) -> str:
    ramp = group.runs[0].ramp
    return ramp.text() if isinstance(ramp, Ramp) else ramp


def _target(group: PlannedGroup) -> str:
    target = group.runs[0].target
    if target is None:
        return "unknown"
    return "dense" if target == 0 else f"{100 * target:g} %"


def _steps(group: PlannedGroup) -> str:
    steps = group.runs[0].length.steps
    return "unknown" if steps is None else str(steps)


def _time(group: PlannedGroup) -> str:
    to_run = [run for run in group.runs if run.standing.will_run]
    known = [run.seconds for run in to_run if run.seconds is not None]
    if not to_run:
        return "-"
    return duration(sum(known)) if len(known) == len(to_run) else "unknown"


def _print_charts(out: Console, preview: Preview) -> None:
    ramps = list(preview.ramps)
    axes: dict[str, list[Ramp]] = {}
    for ramp in evenly(ramps, MOST_CURVES):
        axes.setdefault(ramp.axis, []).append(ramp)
    for unit, together in axes.items():
        out.print(_chart(out, together, unit, preview))
    if len(ramps) > MOST_CURVES:
        say(out, f"{MOST_CURVES} of {len(ramps)} schedule curves are drawn")


def _chart(out: Console, ramps: Sequence[Ramp], unit: str, preview: Preview) -> Text:
    curves = [TextCurve(label_of(ramp, preview), ramp.at) for ramp in ramps]
    span = max(ramp.span for ramp in ramps)
    top = max(max(ramp.target, ramp.at(0), ramp.at(span)) for ramp in ramps) or 1.0
    is_unknown = any(ramp.total is None for ramp in ramps)
    width = max(16, min(out.width, WIDEST_CHART) - 10)
    label = f"{unit}, length unknown" if is_unknown else unit
    chart = Text("\nsparsity\n", no_wrap=True)
    for line in draw_curves(curves, span, label, top, width, braille=not _is_plain(out)):
        for character, owner in line:
            chart.append(character, None if owner is None else COLORS[owner])
        chart.rstrip()
        chart.append("\n")
    for index, curve in enumerate(curves):
        chart.append(f"  {letter(index)}", COLORS[index])
        chart.append(f" {curve.label}\n")
    return chart


def _is_plain(out: Console) -> bool:
    try:
        chr(0x2801).encode(out.encoding)
    except (LookupError, UnicodeEncodeError):
        return True
    return False
