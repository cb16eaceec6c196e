"""Which elements: pure functions from scores and a sparsity to a mask (True = keep).

Only torch operations that exist on every device are used, and nothing is copied to the host:
the counts stay tensors.
"""

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor

from coreai_opt.pruning.spec.schemes import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    PruningScheme,
    Unstructured,
    prune_count,
)

__all__ = ["compute_mask", "global_masks", "prune_count", "scheme_mask", "unstructured_mask"]


def compute_mask(scores: Tensor, sparsity: float, scheme: PruningScheme) -> Tensor:
    """Return the mask that a scheme makes of scores.

    Args:
        scores: any shape and real dtype; higher = keep. NaN counts as the highest.
        sparsity: share to prune, in [0, 1].
        scheme: the pattern in which elements are pruned.

    Returns:
        A bool tensor of the same shape, on the same device; True = keep.

    Raises:
        ValueError: the sparsity is outside [0, 1], or the scheme does not fit the shape.
        TypeError: the scheme is not one that is known here.
    """
    if not isinstance(scheme, PruningScheme):
        raise TypeError(f"no mask is defined for the pruning scheme {scheme!r}")
    prune_count(0, sparsity)  # refuses what is outside 0 to 1, whatever the scheme
    scheme.check(tuple(scores.shape))
    return scheme_mask(scheme, scores, sparsity)


@singledispatch
def scheme_mask(scheme: PruningScheme, scores: Tensor, sparsity: float) -> Tensor:
    """Return the mask of one kind of scheme; ``scheme_mask.register`` adds a kind.

    ``compute_mask`` has checked the sparsity and the shape before it calls this.
    """
    raise TypeError(f"no mask is defined for the pruning scheme {scheme!r}")


@scheme_mask.register
def _unstructured(scheme: Unstructured, scores: Tensor, sparsity: float) -> Tensor:
    return unstructured_mask(scores, sparsity)


@scheme_mask.register
def _channels(scheme: ChannelStructured, scores: Tensor, sparsity: float) -> Tensor:
    others = [axis for axis in range(scores.dim()) if axis != scheme.axis % scores.dim()]
    worth = _sum(scores, others) if others else scores
    return unstructured_mask(worth, sparsity).expand(scores.shape).contiguous()


@scheme_mask.register
def _blocks(scheme: BlockStructured, scores: Tensor, sparsity: float) -> Tensor:
    sides = scheme.sides(tuple(scores.shape))
    if 0 in sides:
        return torch.ones_like(scores, dtype=torch.bool)
    # Each axis becomes two: which block, and where in it.
    split = [
        part
        for size, side in zip(scores.shape, sides, strict=True)
        for part in (size // side, side)
    ]
    inside = list(range(1, len(split), 2))
    blocks = scores.reshape(split)
    mask = unstructured_mask(_sum(blocks, inside), sparsity)
    return mask.expand(blocks.shape).reshape(scores.shape)


@scheme_mask.register
def _n_of_m(scheme: NMStructured, scores: Tensor, sparsity: float) -> Tensor:
    count = scheme.pruned_per_group(sparsity)
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    moved = _ordered(scores).movedim(scheme.axis, -1)
    groups = moved.reshape(-1, scheme.m)
    # A stable sort: among ties the lowest index is pruned first.
    lowest = groups.sort(dim=-1, stable=True).indices[:, :count]
    mask = torch.ones_like(groups, dtype=torch.bool).scatter_(-1, lowest, False)
    return mask.reshape(moved.shape).movedim(-1, scheme.axis).contiguous()


def global_masks(scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Prune the lowest ``floor(total * sparsity)`` elements of several tensors by one threshold.

    Ties go by index in the order of the tensors, lowest pruned first.

    Args:
        scores: one tensor for each weight, any shapes and real dtypes; higher = keep.
        sparsity: share of all elements to prune, in [0, 1].

    Returns:
        One bool tensor for each of the scores, of its shape and on its device; True = keep.

    Example:
        >>> masks = global_masks([torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])], 0.5)
        >>> [mask.tolist() for mask in masks]
        [[False, True], [False, True]]
    """
    if not scores:
        return []
    device = scores[0].device
    joined = torch.cat([score.flatten().to(device) for score in scores])
    sizes = [score.numel() for score in scores]
    parts = torch.split(unstructured_mask(joined, sparsity), sizes)
    return [
        part.view(score.shape).to(score.device) for part, score in zip(parts, scores, strict=True)
    ]


def unstructured_mask(scores: Tensor, sparsity: float) -> Tensor:
    """Prune exactly the ``floor(numel * sparsity)`` elements of the lowest score.

    Ties go by index, lowest pruned first, so that every rank and every device picks the same mask.
    NaN counts as the highest score.

    Args:
        scores: any shape and real dtype; higher = keep.
        sparsity: share to prune, in [0, 1]; 0 keeps all, 1 prunes all.

    Example:
        >>> unstructured_mask(torch.tensor([3.0, 1.0, 1.0, 1.0]), 0.5).tolist()
        [True, False, False, True]
    """
    count = prune_count(scores.numel(), sparsity)
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    if count == scores.numel():
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = _ordered(scores).flatten()
    threshold = _kth_smallest(flat, count)
    below = flat < threshold
    ties = flat == threshold
    room = count - below.sum()
    pruned = below | (ties & (ties.cumsum(0) <= room))
    return pruned.logical_not_().view(scores.shape)


def _ordered(scores: Tensor) -> Tensor:
    return scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _sum(scores: Tensor, axes: list[int]) -> Tensor:
    """Return the sums over some axes, which stay with size 1."""
    # Devices add up in different orders: in float64 the rounding is too small to change a mask.
    # MPS has no float64.
    dtype = torch.float32 if scores.device.type == "mps" else torch.float64
    return _ordered(scores).sum(axes, keepdim=True, dtype=dtype)


def _kth_smallest(flat: Tensor, k: int) -> Tensor:
    # On the CPU a selection is eight times as fast as a sort. Elsewhere a sort is at least as fast
    # (kthvalue on CUDA gives a single row to a single block) and exists on every backend.
    if flat.device.type == "cpu":
        return flat.kthvalue(k).values
    return flat.sort().values[k - 1]
