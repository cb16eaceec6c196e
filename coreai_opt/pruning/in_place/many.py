"""Masks of many tensors, multiplied with the values of all of them together."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from coreai_opt.pruning._torch_internals import multiply_all
from coreai_opt.pruning.masking import INTEGERS, mask_in_place

__all__ = ["SMALL", "ManyMasks", "is_own_memory"]

# Below, a mask is held as integers of the size of a weight as well: one call masks many tensors.
SMALL = 1 << 15


class ManyMasks:
    """Masks of several tensors.

    Values are multiplied as integers with 0 and 1: what is pruned becomes +0.0, whatever it was,
    and what is kept stays as it is, bit for bit.

    Args:
        masks: bool, True = keep.
        dtypes: those of the values that they are put on.
    """

    def __init__(self, masks: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> None:
        self.masks = masks
        self._dtypes = dtypes
        self._factors: list[Tensor | None] = [None] * len(masks)
        self.changed(range(len(masks)))

    def changed(self, places: Iterable[int]) -> None:
        """Take note that masks have other values now."""
        for place in places:
            mask, dtype = self.masks[place], self._dtypes[place]
            if mask.numel() < SMALL and dtype in INTEGERS:
                self._factors[place] = mask.to(INTEGERS[dtype])

    @torch.no_grad()
    def put_on(self, values: Iterable[tuple[int, Tensor]]) -> None:
        """Set values to +0.0 where their mask is False; autograd does not get to know of it.

        Args:
            values: each with the place of its mask; of the shape of the mask, on its device.
        """
        together: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
        for place, value in values:
            factor, dtype = self._factors[place], value.dtype
            if factor is None or INTEGERS.get(dtype) is not factor.dtype:
                mask_in_place(value, self.masks[place])
                continue
            key = value.device, dtype
            if (pair := together.get(key)) is None:
                pair = together[key] = [], []
            pair[0].append(value.data.view(factor.dtype))
            pair[1].append(factor)
        for integers, factors in together.values():
            multiply_all(integers, factors)


def is_own_memory(value: Tensor) -> bool:
    """Return whether a tensor can be changed in place: each element has a place of its own."""
    if value.requires_grad or value.layout is not torch.strided:
        return False
    if value.is_contiguous():
        return True
    return not any(
        size > 1 and not stride for size, stride in zip(value.shape, value.stride(), strict=True)
    )
