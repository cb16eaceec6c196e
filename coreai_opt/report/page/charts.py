"""Charts of the page: headings, captions, tables, and the data of its script."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from coreai_opt.report import charts
from coreai_opt.report.comparing.importance import Importance
from coreai_opt.report.page.chart import Chart, Choice
from coreai_opt.report.page.knobs import importance_chart, parallel_chart
from coreai_opt.report.records import Collected
from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.text import plural, safe_text


def page_charts(
    collected: Collected,
    board: Leaderboard,
    knobs: tuple[str, ...],
    mattered: Importance | None,
) -> tuple[list[Chart], dict[str, Any]]:
    """Return the charts in their order, and the data of their script."""
    data: dict[str, Any] = {
        "metric": safe_text(board.metric),
        "share": board.is_share,
        "mode": board.mode,
    }
    made = [_heat_map(board, knobs), parallel_chart(board), importance_chart(mattered)]
    if board.prunes:
        made = [_accuracy(board), *made, _schedules(collected), _layers(board)]
    data |= {chart.id: numbers for chart, numbers in made}
    return [chart for chart, _ in made], data


def _accuracy(board: Leaderboard) -> tuple[Chart, Any]:
    metric = safe_text(board.metric)
    title = f"{metric} against the sparsity of all weights"
    shown = charts.accuracy(board)
    points = [(name, point) for name, some in shown.series.items() for point in some]
    if not points and not shown.dense:
        return Chart("accuracy", title, _missing_runs(board), is_drawn=False), None
    rows = [[safe_text(name), *_point_cells(board, point)] for name, point in points]
    dense = [["dense control", *_point_cells(board, point)] for point in shown.dense]
    data = {
        "series": [
            {"name": safe_text(series), **_point_data(some)}
            for series, some in shown.series.items()
        ],
        "dense": _point_data(shown.dense),
        "front": _point_data(shown.front),
    }
    columns = [("series", False), ("configuration", False), ("sparsity of all weights", True)]
    columns += [(metric, True), ("std", True), ("runs", True)]
    return Chart("accuracy", title, _accuracy_caption(board, shown), columns, dense + rows), data


def _accuracy_caption(board: Leaderboard, shown: charts.Accuracy) -> str:
    parts = []
    if shown.dense:
        control = shown.dense[0]
        parts.append(f"The dense control has {_with_std(board, control)}.")
    else:
        parts.append("There is no dense control.")
    front = [point for point in shown.front if point not in shown.dense]
    if front:
        sparsest, first = front[-1], front[0]
        parts.append(f"Of the Pareto front, {_at(board, first)}")
        parts[-1] += f", {_at(board, sparsest)}." if sparsest is not first else "."
    parts.append("Bars and bands are one standard deviation over seeds.")
    return " ".join(parts)


def _at(board: Leaderboard, point: charts.ChartPoint) -> str:
    label = safe_text(point.label)
    return f"{label} has {_with_std(board, point)} at {100 * point.sparsity:.1f} % sparsity"


def _with_std(board: Leaderboard, point: charts.ChartPoint) -> str:
    spread = f" (std {board.show_spread(point.std)})" if point.std is not None else ""
    return f"{board.show(point.mean)}{spread} over {plural(point.runs, 'run')}"


def _point_cells(board: Leaderboard, point: charts.ChartPoint) -> list[str]:
    return [safe_text(point.label), f"{100 * point.sparsity:.2f} %", *_numbers(board, point)]


def _numbers(board: Leaderboard, shown: charts.ChartPoint | charts.HeatCell) -> list[str]:
    return [board.show(shown.mean), board.show_spread(shown.std), str(shown.runs)]


def _point_data(points: Sequence[charts.ChartPoint]) -> dict[str, Any]:
    return {
        "label": [safe_text(point.label) for point in points],
        "x": [point.sparsity for point in points],
        "y": [point.mean for point in points],
        "std": [point.std for point in points],
        "n": [point.runs for point in points],
    }


def _heat_map(board: Leaderboard, knobs: tuple[str, ...]) -> tuple[Chart, Any]:
    title = f"{safe_text(board.metric)} over two knobs"
    axes = charts.heat_knobs(board, knobs)
    if axes is None:
        sentence = "A heat map needs two knobs with two values each among the completed runs; "
        varying = ", ".join(map(safe_text, board.varying()))
        sentence += f"there is one: {varying}." if varying else "there is none."
        return Chart("heatmap", title, sentence, is_drawn=False), None
    only = charts.heat_only(board, axes)
    cells = charts.heat_cells(board, *axes, only)
    rows = [[safe_text(cell.y), safe_text(cell.x), *_numbers(board, cell)] for cell in cells]
    columns = [(safe_text(axes[1]), False), (safe_text(axes[0]), False)]
    columns += [(safe_text(board.metric), True), ("std", True), ("runs", True)]
    caption = _heat_caption(board, cells, axes, only)
    choices = _heat_choices(board, axes, only)
    return Chart("heatmap", title, caption, columns, rows, choices), _heat_data(board)


def _heat_choices(
    board: Leaderboard, axes: tuple[str, str], only: Mapping[str, str]
) -> list[Choice]:
    varying = board.varying()
    options = [(str(index), safe_text(knob)) for index, knob in enumerate(varying)]
    x, y = (str(varying.index(knob)) for knob in axes)
    written = [("mean", "mean"), ("n", "runs"), ("both", "both")]
    choices = [
        Choice("x", "across", options, x),
        Choice("y", "up", options, y),
        Choice("text", "in the cells", written, "both"),
    ]
    # One for each knob; the script hides those of the two axes.
    for index, knob in enumerate(varying):
        values = board.values_of(knob)
        limits = [("", "all"), *((str(at), safe_text(one)) for at, one in enumerate(values))]
        chosen = str(values.index(only[knob])) if knob in only else ""
        choices.append(Choice(f"only-{index}", f"only {safe_text(knob)}", limits, chosen))
    return choices


def _heat_data(board: Leaderboard) -> dict[str, Any]:
    orders = {knob: board.values_of(knob) for knob in board.varying()}
    # The index of a group's value of each knob, -1 where it has none.
    places = {knob: {value: at for at, value in enumerate(orders[knob])} for knob in orders}
    return {
        "knobs": [
            {"name": safe_text(knob), "values": list(map(safe_text, values))}
            for knob, values in orders.items()
        ],
        "groups": [
            {
                "at": [places[knob].get(group.knobs[knob] or "", -1) for knob in orders],
                "values": group.values,
            }
            for group in board.pruned
        ],
    }


def _heat_caption(
    board: Leaderboard,
    cells: Sequence[charts.HeatCell],
    axes: tuple[str, str],
    only: Mapping[str, str],
) -> str:
    pick = max if board.mode == "max" else min
    others = [knob for knob in board.varying() if knob not in axes and knob not in only]
    sentence = "A cell is the mean of all runs with its two values"
    sentence += "".join(f" and {key}={value}" for key, value in only.items())
    sentence += f", whatever their {', '.join(others)}." if others else "."
    if cells:
        best = pick(cells, key=lambda cell: cell.mean)
        at = f"{axes[1]}={best.y} {axes[0]}={best.x}"
        best_is = f"{board.show(best.mean)} over {plural(best.runs, 'run')}"
        sentence += f" With {axes[1]} and {axes[0]} the best is {at}: {best_is}."
    return safe_text(sentence)


def _schedules(collected: Collected) -> tuple[Chart, Any]:
    title = "Schedules"
    shown = charts.schedules(collected.rows)
    unknown = ""
    if shown.unknown:
        unknown = f" {plural(shown.unknown, 'schedule')} cannot be followed from the config alone."
    if not shown.curves:
        sentence = f"There is no pruning schedule to draw.{unknown}"
        return Chart("schedules", title, sentence, is_drawn=False), None
    caption = f"The sparsity that {plural(shown.total, 'schedule')} ask for, up to their targets."
    if shown.total == 1:
        caption = "The sparsity that the schedule of all pruned runs asks for, up to its target."
    if shown.total > len(shown.curves):
        caption += f" Drawn are {len(shown.curves)} of the {shown.total:,}, evenly chosen."
    rows = []
    for curve in shown.curves:
        final = curve.sparsity[-1]
        reached = [x for x, y in zip(curve.x, curve.sparsity, strict=True) if y >= final / 2]
        half, end = (f"{reached[0]:g}", f"{curve.x[curve.sparsity.index(final)]:g}")
        rows.append([safe_text(curve.name), f"{100 * final:.2f} %", half, end])
    columns = [("schedule", False), ("final sparsity", True)]
    columns += [(f"half of it at, {shown.unit}", True), (f"all of it at, {shown.unit}", True)]
    data = {
        "unit": safe_text(shown.unit),
        "curves": [
            {"name": safe_text(curve.name), "x": curve.x, "y": curve.sparsity}
            for curve in shown.curves
        ],
    }
    return Chart("schedules", title, caption + unknown, columns, rows), data


def _layers(board: Leaderboard) -> tuple[Chart, Any]:
    title = "Sparsity by layer"
    groups = [*board.pruned, *board.dense]
    shares = [(group, layers) for group in groups if (layers := charts.layer_shares(group))]
    if not shares:
        return Chart("layers", title, _missing_runs(board), is_drawn=False), None
    labels = [
        f"dense control: {group.label}" if group.is_dense else group.label for group, _ in shares
    ]
    options = [(str(index), safe_text(label)) for index, label in enumerate(labels)]
    best, layers = shares[0]
    mean = fmean(layer.mean for layer in layers)
    caption = f"Zeros counted, mean over seeds. The best configuration, {best.label}, has "
    caption += f"{plural(len(layers), 'layer')} of {100 * mean:.1f} % on average."
    columns = [("layer", False), ("weights", True), ("sparsity", True), ("std", True)]
    rows = []
    for layer in layers:
        spread = "" if layer.std is None else f"{100 * layer.std:.2f}"
        share = f"{100 * layer.mean:.2f} %"
        rows.append([safe_text(layer.name), f"{layer.elements:,}", share, spread])
    data = [
        {
            "label": text,
            "layers": [[safe_text(one.name), one.elements, one.mean, one.std] for one in some],
        }
        for (_, text), (_, some) in zip(options, shares, strict=True)
    ]
    choices = [Choice("group", "configuration", options, "0")]
    return Chart("layers", title, safe_text(caption), columns, rows, choices), data


def _missing_runs(board: Leaderboard) -> str:
    if board.unmeasured:
        return f"No completed run has {safe_text(board.metric)}."
    return "No run has completed yet."
