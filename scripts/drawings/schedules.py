"""Draw the picture of docs/schedules.md: what each knob of a ramp changes.

python scripts/drawings/schedules.py
"""

import hashlib
import json
from pathlib import Path

import matplotlib

from coreai_opt.pruning.config import PolynomialDecaySchedule

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "schedules.png"
TARGET, STEPS = 0.9, 600
BASE = {"power": 3.0, "total_iters": 400}

# By knob: the values that are drawn, and the other knobs that make the difference visible.
PANELS: dict[str, tuple[tuple[int | float, ...], dict[str, int | float]]] = {
    "power": ((1.0, 2.0, 3.0), {}),
    "total_iters": ((200, 400, 600), {}),
    "begin_step": ((0, 100, 200), {}),
    "update_frequency": ((1, 50, 100), {}),
}


def main() -> None:
    """Draw a panel for each knob."""
    figure, axes = plt.subplots(2, 2, figsize=(8, 5.2), sharex=True, sharey=True)
    for axis, (knob, (values, others)) in zip(axes.flat, PANELS.items(), strict=True):
        for value in values:
            axis.plot(range(STEPS + 1), curve(**{**BASE, **others, knob: value}), label=f"{value}")
        rest = ", ".join(
            f"{name}={shown}" for name, shown in {**BASE, **others}.items() if name != knob
        )
        axis.set_title(f"{knob}  ({rest})", fontsize=9)
        axis.legend(fontsize=8, loc="lower right")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("optimizer steps", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("sparsity", fontsize=9)
    figure.tight_layout()
    # Without a date, so that the file changes only when the picture does; what it shows is written
    # into it, so that a test sees when it is out of date.
    metadata = {"Software": None, "Comment": shown()}
    figure.savefig(PICTURE, dpi=110, metadata=metadata)


def shown() -> str:
    """Return a hash of all that is drawn: knobs, their values and the curves."""
    curves = [
        [knob, value, [round(one, 9) for one in curve(**{**BASE, **others, knob: value})]]
        for knob, (values, others) in PANELS.items()
        for value in values
    ]
    return hashlib.sha256(json.dumps([BASE, TARGET, curves]).encode()).hexdigest()


def curve(**knobs: float) -> list[float]:
    """Return the sparsity after each step, as a training asks for it."""
    schedule = PolynomialDecaySchedule(**knobs)  # type: ignore[arg-type]
    found: list[float] = []
    for step in range(STEPS + 1):
        before = found[-1] if found else None
        found.append(schedule.compute_sparsity(step, TARGET, prev_sparsity=before))
    return found


if __name__ == "__main__":
    main()
