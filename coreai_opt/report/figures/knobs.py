"""Static figures on knobs: parallel coordinates and importance."""

import math

from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from coreai_opt.report.comparing.importance import Importance
from coreai_opt.report.comparing.parallel import Parallel
from coreai_opt.report.figures.text import plain

BLUE, ORANGE = "#0072b2", "#d55e00"


def draw_parallel(figure: Figure, shown: Parallel) -> None:
    """Draw a line for each configuration, the better the darker, the best in its own colour."""
    figure.set_figwidth(max(6.4, 1.6 * len(shown.axes)))
    axes = figure.add_subplot(ylim=(-0.05, 1.05), xlim=(-0.1, len(shown.axes) - 0.6))
    places = range(len(shown.axes))
    heights = [[math.nan if at is None else at for at in line.at] for line in shown.lines]
    lines = [list(zip(places, line, strict=True)) for line in heights]
    colours = [to_rgba(BLUE, 0.08 + 0.6 * line[-1] ** 2) for line in heights]
    # One collection: hundreds of lines of their own would take seconds.
    axes.add_collection(LineCollection(lines[:-1], colors=colours[:-1], linewidths=1))
    axes.plot(places, heights[-1], color=ORANGE, linewidth=2)
    for place, axis in zip(places, shown.axes, strict=True):
        axes.axvline(place, color="0.3", linewidth=0.8)
        for at, text in axis.ticks:
            axes.text(place + 0.03, at, plain(text), fontsize=7, va="center").set_in_layout(False)
    axes.set_xticks(places, [plain(axis.name) for axis in shown.axes], fontsize=8)
    axes.set_yticks([])
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)


def draw_importance(figure: Figure, found: Importance) -> None:
    """Draw a bar for each knob, the largest above."""
    figure.set_figheight(max(2.0, 0.9 + 0.32 * len(found.shares)))
    axes = figure.add_subplot(xlabel="share of the importance, %", xlim=(0, 105))
    axes.barh(range(len(found.shares)), [100 * one.share for one in found.shares], color=BLUE)
    names = [plain(one.knob) for one in found.shares]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
