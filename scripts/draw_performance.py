"""Draw the pictures of docs/performance.md from the results of scripts/bench.

python scripts/draw_performance.py
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
PHASES = ("ramp", "after", "ramp, no regrowth", "after, no regrowth")
PARTS = ("forward", "backward", "optimizer", "pruner")


def main() -> None:
    """Write the pictures."""
    draw_masks(_read("masks"))
    draw_steps(_read("steps"))


def _read(what: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DOCS / "benchmarks" / f"{what}.json").read_text())
    return content


def draw_masks(results: dict[str, Any]) -> None:
    """Draw the time of a mask: against topk by sparsity, and by the number of weights."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    rows = results["masks"]
    shares = [row["sparsity"] for row in rows]
    for key, label in (("topk_s", "topk and scatter"), ("mask_s", "mask"), ("read_s", "one sum")):
        left.plot(shares, [row[key] * 1e3 for row in rows], marker="o", label=label)
    left.set(yscale="log", xlabel="sparsity", ylabel="ms", ylim=(1, None))
    left.set_title(f"{results['weights'] / 1e6:.1f} million weights")
    left.legend()
    sizes = results["sizes"]
    right.plot([row["weights"] for row in sizes], [row["ns_a_weight"] for row in sizes], marker="o")
    right.set(xscale="log", xlabel="weights of a tensor", ylabel="ns a weight", ylim=(0, None))
    right.set_title("a mask, by size")
    figure.savefig(DOCS / "images" / "performance-masks.png", dpi=110)


def draw_steps(results: dict[str, Any]) -> None:
    """Draw where the time of a training step goes, dense and pruned."""
    cases = list(dict.fromkeys((row["model"], row["optimizer"]) for row in results["rows"]))
    figure, axes = plt.subplots(1, len(cases), figsize=(2 * len(cases), 3.8), layout="constrained")
    for axis, (model, optimizer) in zip(axes, cases, strict=True):
        rows = [
            row for row in results["rows"] if (row["model"], row["optimizer"]) == (model, optimizer)
        ]
        dense = sum(rows[0][f"{part}_s"] for part in PARTS)
        bottom = [0.0] * len(rows)
        for part in PARTS:
            heights = [row[f"{part}_s"] / dense for row in rows]
            axis.bar(range(len(rows)), heights, bottom=bottom, label=part)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axis.set_xticks(range(len(rows)), [row["phase"] for row in rows], rotation=60, ha="right")
        axis.set_title(f"{model}, {optimizer}", fontsize=10)
        axis.axhline(1, color="grey", linewidth=0.8)
    axes[0].set_ylabel("of the dense step")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(DOCS / "images" / "performance-steps.png", dpi=110)


if __name__ == "__main__":
    main()
