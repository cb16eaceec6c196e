"""Static figures: the charts as PNG and SVG on a white ground, for papers."""

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from coreai_opt.report import charts
from coreai_opt.report.comparing.importance import Importance
from coreai_opt.report.comparing.parallel import parallel
from coreai_opt.report.figures.knobs import draw_importance, draw_parallel
from coreai_opt.report.figures.text import plain
from coreai_opt.report.files import write_file
from coreai_opt.report.records import Collected
from coreai_opt.report.tables import Leaderboard, SeedGroup

NAMES = ("accuracy", "heatmap", "parallel", "importance", "schedules", "layers")
KINDS = ("png", "svg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")


def draw_figures(
    folder: Path,
    collected: Collected,
    board: Leaderboard,
    knobs: tuple[str, ...] = (),
    mattered: Importance | None = None,
) -> list[str]:
    """Draw each chart that has data, and return the names of those drawn.

    Figures of earlier calls that are not drawn now are removed.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in _pictures(collected, board, knobs, mattered):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        # Text stays text, and the same runs give the same file.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            for kind in KINDS:
                _write(figure, folder / f"{name}.{kind}")
                figure.set_layout_engine("none")  # the second file is laid out as the first
        drawn.append(name)
    for name in set(NAMES) - set(drawn):
        for kind in KINDS:
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    return drawn


def _write(figure: Figure, path: Path) -> None:
    kind = path.suffix.lstrip(".")
    # Without date and program, so that equal charts are equal files.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata=metadata)
    write_file(path, content.getvalue())


def _pictures(
    collected: Collected,
    board: Leaderboard,
    knobs: tuple[str, ...],
    mattered: Importance | None,
) -> Iterator[tuple[str, Callable[[Figure], None]]]:
    axes = charts.heat_knobs(board, knobs)
    if axes is not None:
        yield "heatmap", lambda figure: _heat_map(figure, board, *axes)
    lines = parallel(board)
    if lines is not None:
        yield "parallel", lambda figure: draw_parallel(figure, lines)
    if mattered is not None and mattered.shares:
        yield "importance", lambda figure: draw_importance(figure, mattered)
    if board.prunes:
        yield from _pictures_of_pruning(collected, board)


def _pictures_of_pruning(
    collected: Collected, board: Leaderboard
) -> Iterator[tuple[str, Callable[[Figure], None]]]:
    shown = charts.accuracy(board)
    if shown.series or shown.dense:
        yield "accuracy", lambda figure: _accuracy(figure, shown, board)
    curves = charts.schedules(collected.rows)
    if curves.curves:
        yield "schedules", lambda figure: _schedules(figure, curves)
    best = next((group for group in board.pruned if charts.layer_shares(group)), None)
    if best is not None:
        yield "layers", lambda figure: _layers(figure, best)


def _accuracy(figure: Figure, shown: charts.Accuracy, board: Leaderboard) -> None:
    scale, unit = (100, ", %") if board.is_share else (1, "")
    axes = figure.add_subplot(
        xlabel="sparsity of all weights, %", ylabel=plain(board.metric) + unit
    )
    for point in shown.dense:
        axes.axhline(scale * point.mean, color="black", linewidth=1, linestyle="--")
        spread = point.std or 0.0
        low, high = scale * (point.mean - spread), scale * (point.mean + spread)
        axes.axhspan(low, high, color="black", alpha=0.08, linewidth=0)
    if shown.dense:
        axes.plot([], [], "k--", linewidth=1, label="dense control")
    for index, (name, points) in enumerate(shown.series.items()):
        axes.errorbar(
            [100 * point.sparsity for point in points],
            [scale * point.mean for point in points],
            yerr=[scale * (point.std or 0.0) for point in points],
            fmt=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            markersize=5,
            capsize=2,
            linewidth=1,
            label=plain(name),
        )
    x = [100 * point.sparsity for point in shown.front]
    axes.plot(x, [scale * point.mean for point in shown.front], color="0.35", label="Pareto front")
    axes.fill_between(
        x,
        [scale * (point.mean - (point.std or 0.0)) for point in shown.front],
        [scale * (point.mean + (point.std or 0.0)) for point in shown.front],
        color="0.35",
        alpha=0.12,
        linewidth=0,
    )
    axes.grid(alpha=0.3)
    are_short = all(len(name) < 20 for name in shown.series)
    figure.legend(loc="outside lower center", fontsize=7, ncols=4 if are_short else 1)


def _heat_map(figure: Figure, board: Leaderboard, x: str, y: str) -> None:
    columns, rows = board.values_of(x), board.values_of(y)
    only = charts.heat_only(board, (x, y))
    scale, unit = (100, ", %") if board.is_share else (1, "")
    cells = {(cell.x, cell.y): cell for cell in charts.heat_cells(board, x, y, only)}
    means = {at: scale * cell.mean for at, cell in cells.items()}
    grid = [[means.get((column, row), math.nan) for column in columns] for row in rows]
    axes = figure.add_subplot(xlabel=plain(x), ylabel=plain(y))
    axes.set_title(plain(" ".join(f"{key}={value}" for key, value in only.items())), fontsize=8)
    image = axes.imshow(grid, cmap="cividis", aspect="auto", origin="lower")
    axes.set_xticks(range(len(columns)), [plain(value) for value in columns])
    axes.set_yticks(range(len(rows)), [plain(value) for value in rows])
    low, high = image.get_clim()
    for (column, row), cell in cells.items():
        is_light = high > low and (means[column, row] - low) / (high - low) > 0.5
        axes.text(
            columns.index(column),
            rows.index(row),
            f"{board.show(cell.mean)}\nn = {cell.runs}",
            ha="center",
            va="center",
            fontsize=8,
            color="black" if is_light else "white",
        ).set_in_layout(False)  # measuring each would take longer than all the rest
    figure.colorbar(image, label=plain(board.metric) + unit)


def _schedules(figure: Figure, shown: charts.Schedules) -> None:
    axes = figure.add_subplot(xlabel=shown.unit, ylabel="sparsity asked for, %")
    for index, curve in enumerate(shown.curves):
        axes.plot(
            curve.x,
            [100 * share for share in curve.sparsity],
            color=COLOURS[index % len(COLOURS)],
            linestyle=DASHES[index // len(COLOURS) % len(DASHES)],
            label=plain(curve.name),
        )
    axes.grid(alpha=0.3)
    # Below the axes: dozens of names would hide what they name.
    rows = math.ceil(len(shown.curves) / 2)
    figure.set_figheight(3.6 + 0.16 * rows)
    figure.legend(loc="outside lower center", fontsize=7, ncols=2)


def _layers(figure: Figure, group: SeedGroup) -> None:
    layers = charts.layer_shares(group)
    axes = figure.add_subplot(xlabel="sparsity, %", xlim=(0, 105))
    axes.barh(
        range(len(layers)),
        [100 * layer.mean for layer in layers],
        xerr=[100 * (layer.std or 0.0) for layer in layers],
        color=COLOURS[0],
    )
    axes.set_yticks(range(len(layers)), [plain(layer.name) for layer in layers], fontsize=8)
    axes.invert_yaxis()
    axes.set_title(plain(group.label), fontsize=8, wrap=True)
