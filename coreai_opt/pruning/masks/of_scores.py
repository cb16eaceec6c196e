"""Mask functions: pure functions from scores and a sparsity to a mask (True = keep).

What is a score, a pattern, a share is here; which of many scores are the lowest, in ``selection``.
"""

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor

from coreai_opt.pruning.masks.selection import Magnitude, Scores, keep_highest
from coreai_opt.pruning.spec.schemes import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    PruningScheme,
    Unstructured,
    prune_count,
)

__all__ = ["compute_mask", "global_masks", "prune_count", "scheme_mask", "unstructured_mask"]


def compute_mask(scores: Scores, sparsity: float, scheme: PruningScheme) -> Tensor:
    """Return the mask that a scheme makes of scores.

    Args:
        scores: any shape and real dtype; higher = keep. NaN counts as the highest. A ``Magnitude``
            spares the tensor of absolute values where the scheme can do without it.
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
    if type(scheme) is Unstructured:
        return unstructured_mask(scores, sparsity)
    tensor = scores.tensor() if isinstance(scores, Magnitude) else scores
    return scheme_mask(scheme, tensor, sparsity)


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


def global_masks(scores: Sequence[Scores], sparsity: float) -> list[Tensor]:
    """Prune the lowest ``floor(total * sparsity)`` elements of several tensors by one threshold.

    Ties go by index in the order of the tensors, lowest pruned first.

    Args:
        scores: one for each weight, any shapes and real dtypes; higher = keep.
        sparsity: share of all elements to prune, in [0, 1].

    Returns:
        One bool tensor for each of the scores, of its shape and on its device; True = keep.

    Example:
        >>> masks = global_masks([torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])], 0.5)
        >>> [mask.tolist() for mask in masks]
        [[False, True], [False, True]]
    """
    return keep_highest(scores, prune_count(sum(score.numel() for score in scores), sparsity))


def unstructured_mask(scores: Scores, sparsity: float) -> Tensor:
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
    (mask,) = keep_highest([scores], prune_count(scores.numel(), sparsity))
    return mask


def _ordered(scores: Tensor) -> Tensor:
    return scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _sum(scores: Tensor, axes: list[int]) -> Tensor:
    """Return the sums over some axes, which stay with size 1."""
    # Devices add up in different orders: in float64 the rounding is too small to change a mask.
    # MPS has no float64.
    dtype = torch.float32 if scores.device.type == "mps" else torch.float64
    return _ordered(scores).sum(axes, keepdim=True, dtype=dtype)
