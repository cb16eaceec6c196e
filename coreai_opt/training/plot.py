"""Picture of a run: sparsity and accuracy over steps."""

import csv
from pathlib import Path

from coreai_opt.runs.paths import RunPaths

# The counted curve is wide and below the scheduled one, so that both show where they agree.
CURVES = (
    ("target", "sparsity, target", ":", 1.5),
    ("sparsity", "sparsity, counted", "C2-", 4),
    ("scheduled", "sparsity, scheduled", "k--", 1),
)

PLACE = (0.085, 0.13, 0.89, 0.84)  # of the axes: left, bottom, width, height

Curve = tuple[list[int], list[float]]


def draw_run(paths: RunPaths) -> str | None:
    """Draw ``run.png`` from the CSV files of a run.

    Returns:
        None, or a sentence that names the missing package.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "matplotlib is not installed: pip install 'hydra-coreai-opt[demo]'"
    figure = Figure(figsize=(7, 4), dpi=120)
    canvas = FigureCanvasAgg(figure)
    # Fixed margins: a measured layout, and savefig, which draws twice, take longer than all else,
    # and a sweep draws after every run.
    axes = figure.add_axes(PLACE, xlabel="optimizer step", ylabel="share", ylim=(-0.02, 1.02))
    total = [row for row in _rows(paths.sparsity) if row["layer"] == "total"]
    for column, label, style, width in CURVES:
        curve = read_curve(total, column)
        axes.plot(*curve, style, linewidth=width, label=label, drawstyle="steps-post")
    metrics = _rows(paths.metrics)
    for column in ("val/accuracy", "train/accuracy"):
        steps, values = read_curve(metrics, column)
        if steps:
            axes.plot(steps, values, "o-", markersize=3, label=column)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    canvas.print_png(paths.plot)  # type: ignore[no-untyped-call]
    return None


def read_curve(rows: list[dict[str, str]], column: str) -> Curve:
    """Return steps and values of the rows that have a value in that column."""
    filled = [row for row in rows if row.get(column)]
    return [int(row["step"]) for row in filled], [float(row[column]) for row in filled]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
