"""Charts of the page on knobs: parallel coordinates and importance."""

from typing import Any

from coreai_opt.report.comparing.importance import Importance
from coreai_opt.report.comparing.parallel import Parallel, parallel
from coreai_opt.report.page.chart import Chart
from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.text import plural, safe_text


def parallel_chart(board: Leaderboard) -> tuple[Chart, Any]:
    """Return the chart of all varying knobs and the metric, and its data."""
    title = f"{safe_text(board.metric)} over all knobs"
    shown = parallel(board)
    if shown is None:
        sentence = "Parallel coordinates need two configurations among the completed runs."
        return Chart("parallel", title, sentence, is_drawn=False), None
    better = "largest" if board.mode == "max" else "smallest"
    caption = "A line is a configuration, its mean over seeds on the last axis, "
    caption += f"the {better} above. The best is {shown.lines[-1].label}: "
    caption += f"{board.show(shown.lines[-1].mean)}."
    if shown.total > len(shown.lines):
        caption += f" Drawn are {len(shown.lines)} of {shown.total:,}, evenly chosen by rank."
    knobs = [axis.name for axis in shown.axes[:-1]]
    groups = {group.label: group for group in board.pruned}
    rows = [
        [*(safe_text(group.knobs.get(knob) or "") for knob in knobs), board.show(group.mean)]
        for group in (groups[line.label] for line in reversed(shown.lines))
    ]
    columns = [*((safe_text(knob), False) for knob in knobs), (safe_text(board.metric), True)]
    return Chart("parallel", title, safe_text(caption), columns, rows), _parallel_data(shown)


def _parallel_data(shown: Parallel) -> dict[str, Any]:
    axes = [
        {"name": safe_text(axis.name), "ticks": [[at, safe_text(text)] for at, text in axis.ticks]}
        for axis in shown.axes
    ]
    lines = [
        {"label": safe_text(line.label), "at": line.at, "mean": line.mean} for line in shown.lines
    ]
    return {"axes": axes, "lines": lines}


def importance_chart(found: Importance | None) -> tuple[Chart, Any]:
    """Return the chart of the importances, and its data; None = scikit-learn is not installed."""
    title = "Which knob mattered"
    if found is None:
        sentence = (
            "Not computed: scikit-learn is not installed: pip install 'hydra-coreai-opt[report]'"
        )
        return Chart("importance", title, sentence, is_drawn=False), None
    if not found.shares:
        return Chart("importance", title, found.sentence, is_drawn=False), None
    rows = [[safe_text(one.knob), f"{100 * one.share:.1f} %"] for one in found.shares]
    columns = [("knob", False), ("share of the importance", True)]
    data = [[safe_text(one.knob), one.share] for one in found.shares]
    return Chart("importance", title, found.sentence, columns, rows), data


def importance_sentence(found: Importance) -> str:
    """Return what mattered, in one line for the terminal."""
    if not found.shares:
        return f"which knob mattered: {found.sentence}"
    shares = ", ".join(f"{safe_text(one.knob)} {100 * one.share:.0f} %" for one in found.shares)
    fit = 100 * (found.fit or 0.0)
    count = plural(found.runs, "run")
    return f"which knob mattered: {shares} (boosted trees, {count}, held-out R2 {fit:.0f} %)"
