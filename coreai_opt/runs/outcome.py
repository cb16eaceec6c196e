"""Outcome of a run in one line, and by how much it is below its target sparsity."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coreai_opt.pruning.model.stats import SparsityReport


def shortfall(sparsity: Mapping[str, Any]) -> str | None:
    """Return in words that a sparsity is below its target, None where it is not.

    Below is more than one element a layer: no share of a layer can be met closer.

    Args:
        sparsity: the node of a record: ``target``, ``achieved`` and ``layers``.

    Example:
        >>> layers = [{"elements": 1000, "nonzero": 384, "target": 0.9}]
        >>> shortfall({"target": 0.9, "achieved": 0.616, "layers": layers})
        'sparsity 61.60 % is below the target, 90.00 %'
        >>> shortfall({"target": 0.6165, "achieved": 0.616, "layers": layers}) is None
        True
    """
    target, achieved = sparsity["target"], sparsity["achieved"]
    pruned = [layer for layer in sparsity["layers"] if layer["target"] is not None]
    elements = sum(layer["elements"] for layer in pruned)
    if (target - achieved) * elements <= len(pruned):
        return None
    return f"sparsity {100 * achieved:.2f} % is below the target, {100 * target:.2f} %"


def missing_targets(config: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Return the targets of ``deploy`` that a config asks for and a record has no artefact of.

    Example:
        >>> record = {"deploy": {"targets": {"torch": {"error": None}, "onnx": {"error": "no"}}}}
        >>> missing_targets({"deploy": ["torch", "onnx"]}, record)
        ['onnx']
    """
    asked = config.get("deploy") or ()
    there = (record.get("deploy") or {}).get("targets") or {}
    made = {name for name, one in there.items() if isinstance(one, Mapping) and not one["error"]}
    return [name for name in asked if name not in made]


def sparsity_facts(report: "SparsityReport") -> dict[str, Any]:
    """Return what a record says of the zeros that were counted in a model."""
    known = ("name", "shape", "elements", "nonzero", "target")
    sparsity: dict[str, Any] = {
        "target": report.target,
        "achieved": report.achieved,
        "of_all_weights": report.of_all_weights,
        "all_weights": {"elements": report.all_elements, "nonzero": report.all_nonzero},
        "left_dense": [
            {
                "type": kind.kind,
                "weights": kind.weights,
                "elements": kind.elements,
                "nonzero": kind.nonzero,
            }
            for kind in report.left_dense
        ],
        "layers": [{name: getattr(layer, name) for name in known} for layer in report.layers],
    }
    return {**sparsity, "below_target": shortfall(sparsity) is not None}


def summary_line(result: Mapping[str, Any], root: Path) -> str:
    """Return one line with accuracy, sparsity, size, time and the run directory."""
    metrics, objective, sparsity = result["metrics"], result["objective"], result["sparsity"]
    parts = [
        f"{name} {percent(metrics[name])}"
        for name in ("test/accuracy", "val/accuracy")
        if name in metrics
    ]
    if not parts and objective["value"] is not None:
        parts = [f"{objective['name']} {objective['value']:.4g}"]
    size = result["parameters"]
    parts += [
        _sparsity(sparsity),
        f"{size['nonzero']:,} of {size['total']:,} parameters",
        f"{result['wall_seconds']:.1f} s",
        str(root),
    ]
    return ", ".join(parts)


def _sparsity(sparsity: Mapping[str, Any]) -> str:
    """Return the sparsity of what is pruned, and that of all weights where something is not."""
    pruned = shortfall(sparsity) or f"sparsity {percent(sparsity['achieved'])}"
    overall = sparsity.get("of_all_weights", sparsity["achieved"])
    if percent(overall) == percent(sparsity["achieved"]):
        return pruned
    return f"{pruned} ({percent(overall)} of all weights)"


def percent(share: float) -> str:
    """Return a share as text, ``90.00 %``."""
    return f"{100 * share:.2f} %"
