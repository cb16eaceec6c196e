"""Results below their target sparsity, by the numbers of a record."""

from collections.abc import Mapping
from typing import Any

__all__ = ["shortfall"]


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
