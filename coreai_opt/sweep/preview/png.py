"""Picture of a preview's schedule curves."""

from collections.abc import Sequence
from pathlib import Path

from coreai_opt.config.errors import ConfigError
from coreai_opt.sweep.preview.planned import Preview, label_of
from coreai_opt.sweep.preview.ramps import Ramp

FILE = "preview.png"
MOST_POINTS = 1000


def draw_preview(preview: Preview, folder: Path) -> str:
    """Draw ``preview.png``, and return a sentence with its path or the reason for its absence.

    Args:
        preview: the runs.
        folder: of the file.

    Raises:
        ConfigError: the file cannot be written.
    """
    if not preview.ramps:
        return f"no {FILE}: there is no schedule to draw"
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return f"no {FILE}: matplotlib is not installed: pip install 'hydra-coreai-opt[demo]'"
    units = list(dict.fromkeys(ramp.axis for ramp in preview.ramps))
    figure = Figure(figsize=(7, 3 + 2 * len(units)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, unit in enumerate(units, start=1):
        axes = figure.add_subplot(len(units), 1, number, xlabel=unit, ylabel="sparsity")
        ramps = [ramp for ramp in preview.ramps if ramp.axis == unit]
        for ramp in ramps:
            axes.plot(*points(ramp), drawstyle="steps-post", label=label_of(ramp, preview))
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize="small")
    path = folder / FILE
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        sentence = f"{path} cannot be written: {error.strerror}; allowed: another directory"
        raise ConfigError.of("preview.png", sentence) from error
    return f"the curves are in {path}"


def points(ramp: Ramp) -> tuple[Sequence[int], Sequence[float]]:
    """Return positions on the axis of a ramp and its values there, the ends among them."""
    count = min(ramp.span, MOST_POINTS)
    positions = [ramp.span * index // count for index in range(count + 1)]
    return positions, [ramp.at(position) for position in positions]
