"""Draw the pictures of docs/performance.md from the results of scripts/bench, print its table.

python scripts/drawings/performance.py
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parents[2] / "docs"
PHASES = ("ramp", "ramp, every 10", "after", "ramp, no regrowth", "after, no regrowth")
WAYS = ("on the model", "in place")


def main() -> None:
    """Write the pictures, and print the table of steps."""
    draw_masks(_read("masks"))
    draw_steps(_read("steps"))
    print(table_of_steps(_read("steps")))


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


def table_of_steps(results: dict[str, Any]) -> str:
    """Return the table of docs/performance.md: what a step takes of the dense one."""
    rows = {
        (row["model"], row["optimizer"], row["way"], row["phase"]): row for row in results["rows"]
    }
    heads = [f"{way}: {phase}" for way in WAYS for phase in PHASES]
    lines = [["", *heads], ["---"] * (len(heads) + 1)]
    for model, optimizer in dict.fromkeys(key[:2] for key in rows):
        dense = rows[model, optimizer, "dense", ""]["step_s"]
        found = [rows.get((model, optimizer, way, phase)) for way in WAYS for phase in PHASES]
        ratios = ["" if row is None else f"{row['ratio']:.2f}" for row in found]
        lines.append([f"{model}, {optimizer}, {dense * 1e3:.0f} ms", *ratios])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw_steps(results: dict[str, Any]) -> None:
    """Draw what a training step takes of the dense one: on the model, and in place."""
    cases = list(dict.fromkeys((row["model"], row["optimizer"]) for row in results["rows"]))
    figure, axes = plt.subplots(2, (len(cases) + 1) // 2, figsize=(10, 6.4), layout="constrained")
    for axis, case in zip(axes.T.flat, cases, strict=False):
        rows = [row for row in results["rows"] if (row["model"], row["optimizer"]) == case]
        phases = [phase for phase in PHASES if any(row["phase"] == phase for row in rows)]
        for offset, way in enumerate(WAYS):
            ratios = {row["phase"]: row["ratio"] for row in rows if row["way"] == way}
            places = [place + 0.4 * offset - 0.2 for place in range(len(phases))]
            axis.bar(places, [ratios[phase] for phase in phases], width=0.4, label=way)
        axis.set_xticks(range(len(phases)), phases, rotation=40, ha="right", fontsize=8)
        axis.set_title(", ".join(case), fontsize=10)
        axis.axhline(1, color="grey", linewidth=0.8)
    for axis in axes[:, 0]:
        axis.set_ylabel("of the dense step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(DOCS / "images" / "performance-steps.png", dpi=110)


if __name__ == "__main__":
    main()
