"""Which numbers are the lowest, on a GPU or another device: a few passes by way of a sample.

As on the CPU (see ``_host_selection``), in operations on whole tensors.
"""

from functools import lru_cache
from math import ceil, floor, sqrt

import torch
from torch import Tensor

from coreai_opt.pruning.mixing import GOLDEN, mixed

__all__ = ["lowest_on_device"]

# Below, a sort takes less time than the launches of what is done without it.
MANY = 1 << 20
WIDTH = 5.0  # standard deviations of a sample's quantile, to either side


def lowest_on_device(keys: Tensor, count: int) -> Tensor:
    """Return which keys are the lowest ``count``; ties go by index, lowest first.

    Args:
        keys: one dimension, without NaN.
        count: 1 to as many as there are, less one.

    Returns:
        A bool tensor of the same shape, on the same device.
    """
    if len(keys) >= MANY and keys.device.type == "cuda":
        found = _by_sample(keys, count)
        if found is not None:
            return found
    order = keys.sort(stable=True).indices
    return torch.zeros_like(keys, dtype=torch.bool).index_fill_(0, order[:count], True)


def _by_sample(keys: Tensor, count: int) -> Tensor | None:
    sample = keys[_places(len(keys), keys.device)].sort().values
    expected = len(sample) * count / len(keys)
    spread = WIDTH * sqrt(expected * (1 - count / len(keys))) + 1
    first, last = floor(expected - spread), ceil(expected + spread)
    low = sample[first] if first >= 0 else _ends(keys.dtype)[0]
    high = sample[last] if last < len(sample) else _ends(keys.dtype)[1]
    # Neither end is between: many may be equal to it.
    lowest = keys <= low
    places = (lowest | (keys >= high)).logical_not_().nonzero().squeeze(1)
    below = int(lowest.sum())
    if count <= below:
        return _at(keys, count, low)
    if count > below + len(places):
        return _at(keys, count, high)
    order = keys[places].sort(stable=True).indices
    return lowest.index_fill_(0, places[order[: count - below]], True)


def _at(keys: Tensor, count: int, cut: Tensor | float) -> Tensor | None:
    """Return the lowest by a cut at a value that many keys may have; None = it is elsewhere."""
    lowest, ties = keys < cut, keys == cut
    below, equal = int(lowest.sum()), int(ties.sum())
    if not below < count <= below + equal:
        return None
    return lowest.logical_or_(ties & (ties.cumsum(0) <= count - below))


@lru_cache(maxsize=32)  # a model has many layers of few sizes; it takes sixteen operations
def _places(total: int, device: torch.device) -> Tensor:
    """Return one index from each of many stretches of equal length."""
    stretch = max(floor(total ** (1 / 3)), 1)
    number = torch.arange(total // stretch, device=device)
    # Not at equal distances: weights may have a period.
    return mixed(number * GOLDEN).remainder_(stretch).add_(number, alpha=stretch)


def _ends(dtype: torch.dtype) -> tuple[float, float]:
    if dtype.is_floating_point:
        return -torch.inf, torch.inf
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max
