"""Batches of small tensors: masks of tensors of one shape are computed as rows of one tensor.

A call of Python or of torch takes longer than what is done in a small tensor.
"""

from collections.abc import Hashable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from coreai_opt.pruning._torch_internals import base_of, copy_all
from coreai_opt.pruning.masks.selection import count_true_of_each, keep_largest_of_each
from coreai_opt.pruning.model.targets import PrunedTensor
from coreai_opt.pruning.spec.criteria import MagnitudePruneImpl
from coreai_opt.pruning.spec.prune_impl import PruneImplBase
from coreai_opt.pruning.spec.schemes import Unstructured, prune_count

# Tensors with fewer elements are put together, as many as stay in the cache.
SMALL = 1 << 15
AT_ONCE = 1 << 18
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def batches(tensors: Sequence[PrunedTensor]) -> list[list[int]]:
    """Return places of tensors, put together where they are small and alike.

    Alike are those of one shape, dtype and device, of which single weights are pruned by their
    magnitude. All others stand alone.
    """
    found: list[list[int]] = []
    last: dict[Hashable, list[int]] = {}
    for place, tensor in enumerate(tensors):
        mask = tensor.impl.mask
        kind = _kind(tensor, mask)
        among = None if kind is None else last.get(kind)
        if among is None or len(among) >= AT_ONCE // mask.numel():
            among = []
            found.append(among)
            if kind is not None:
                last[kind] = among
        among.append(place)
    return found


def _kind(tensor: PrunedTensor, mask: Tensor) -> Hashable:
    impl, kind = tensor.impl, type(tensor.impl)
    if not 0 < mask.numel() < SMALL or mask.is_meta or not _is_by_magnitude(kind):  # type: ignore[arg-type]
        return None
    weight = tensor.original
    if type(weight) is not nn.Parameter or weight.dtype not in DTYPES:
        return None
    # What began with zeros has a share of its own.
    if type(impl.spec.pruning_scheme) is not Unstructured or impl.floor:
        return None
    return mask.shape, weight.dtype, mask.device, impl.allow_regrowth


@cache  # asked for every layer at every update
def _is_by_magnitude(kind: type[PruneImplBase]) -> bool:
    """Return whether a criterion is the magnitude of this package, not overridden."""
    names = ("ranking", "score", "scores", "update", "replace_mask")
    plain = MagnitudePruneImpl
    return issubclass(kind, plain) and all(
        getattr(kind, name) is getattr(plain, name) for name in names
    )


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape as the rows of one; a view where they are such rows already."""
    first, size = tensors[0], tensors[0].numel()
    base, start, step = base_of(first), first.data_ptr(), size * first.element_size()
    if base is not None and all(
        base_of(each) is base and each.data_ptr() == start + row * step and each.is_contiguous()
        for row, each in enumerate(tensors)
    ):
        return first.detach().as_strided((len(tensors), size), (size, 1))
    return torch.stack([each.detach() for each in tensors]).view(len(tensors), -1)


@torch.no_grad()
def update_together(
    impls: Sequence[MagnitudePruneImpl], weights: Sequence[Tensor], sparsity: float
) -> None:
    """Recompute the masks of a batch in place, as ``update`` of each does."""
    now, first = [impl.mask for impl in impls], impls[0]
    before = stacked(now)
    kept = None if first.allow_regrowth else before
    pruned = prune_count(before.shape[1], sparsity)
    masks = keep_largest_of_each(stacked(weights), kept, pruned)
    if kept is not None:
        masks &= kept
    counts = count_true_of_each(masks > before)
    copy_all(now, masks.view(-1, *now[0].shape).unbind())
    for impl, regrown in zip(impls, counts, strict=True):
        impl.took_mask(sparsity, regrown)
