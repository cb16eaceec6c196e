"""Selection of the lowest scores on a GPU: nothing is read back from the device.

A cut is found there, and what ties with it is counted there: nobody waits.
"""

import torch
from torch import Tensor

# Below, a sort takes less time than the launches of what is done without it.
MANY = 1 << 20


def lowest_on_device(keys: Tensor, count: int) -> Tensor:
    """Return which keys of each row, along the last axis, are the lowest ``count``.

    Ties go by index, lowest first. No key is NaN; ``count`` is 1 to the length of a row, less one.
    """
    if keys.device.type == "mps" or keys.numel() < MANY:  # topk gives few elements there
        order = keys.sort(dim=-1, stable=True).indices
        return torch.zeros_like(keys, dtype=torch.bool).scatter_(-1, order[..., :count], True)
    cut = _cut(keys, count)
    lowest, ties = keys < cut, keys == cut
    # A sum of counts in 32 bits takes half the memory.
    wide = torch.int64 if keys.shape[-1] >= 1 << 31 else torch.int32
    needed = count - lowest.sum(-1, keepdim=True, dtype=wide)
    return lowest.logical_or_(ties.logical_and_(ties.cumsum(-1, dtype=wide) <= needed))


def _cut(keys: Tensor, count: int) -> Tensor:
    """Return the highest of the lowest ``count`` keys of each row."""
    size = keys.shape[-1]
    # topk gives the shorter of both sides, in any order: its end is looked for.
    if count <= size // 2:
        return keys.topk(count, largest=False, sorted=False).values.amax(-1, keepdim=True)
    return keys.topk(size - count + 1, sorted=False).values.amin(-1, keepdim=True)
