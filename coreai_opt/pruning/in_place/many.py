"""Masks of many tensors, multiplied with all their values in few calls."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coreai_opt.pruning._torch_internals import copy_all, multiply_all
from coreai_opt.pruning.masks.masking import INTEGERS, mask_in_place
from coreai_opt.pruning.masks.together import SMALL, stacked

Together = dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]]


# Of so many the weights are remembered as they are masked.
OPTIMIZERS = 4


class _Known(NamedTuple):
    """Values that were masked before, as integers in their own memory."""

    places: Sequence[int]
    pointers: list[int]
    together: Together
    alone: list[int]


class ManyMasks:
    """Masks of several tensors, True = keep, for values of some dtypes.

    Values are multiplied as integers with 0 and 1: what is pruned becomes +0.0, whatever it was,
    and what is kept stays as it is, bit for bit. The mask of a small tensor is held as integers of
    the size of a weight as well: one call masks many tensors.
    """

    def __init__(self, masks: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> None:
        self.masks = masks
        self._factors: list[Tensor | None] = [
            mask.to(INTEGERS[dtype]) if mask.numel() < SMALL and dtype in INTEGERS else None
            for mask, dtype in zip(masks, dtypes, strict=True)
        ]
        self._known: dict[int, _Known] = {}

    def changed(self, places: Iterable[int]) -> None:
        """Take note that masks have other values now."""
        pairs = [(self._factors[place], self.masks[place]) for place in places]
        there = [(factor, mask) for factor, mask in pairs if factor is not None]
        copy_all([factor for factor, _ in there], [mask for _, mask in there])

    def together(self, places: Sequence[int]) -> Tensor:
        """Return the masks of small tensors of one shape as integers, a row for each.

        What is written to the rows is written to the masks that are put on.
        """
        factors = [factor for place in places if (factor := self._factors[place]) is not None]
        rows = stacked(factors)
        if rows.data_ptr() != factors[0].data_ptr():
            for place, row in zip(places, rows.view(-1, *factors[0].shape).unbind(), strict=True):
                self._factors[place] = row
            self._known.clear()
        return rows

    @torch.no_grad()
    def put_on(self, values: Iterable[tuple[int, Tensor]]) -> None:
        """Set values to +0.0 where their mask is False; autograd does not get to know of it.

        Each stands with the place of its mask, and has its shape and device.
        """
        together: Together = {}
        for place, value in values:
            if not self._add(together, place, value):
                mask_in_place(value, self.masks[place])
        _multiply(together)

    @torch.no_grad()
    def put_on_parameters(self, places: Sequence[int], values: Sequence[Tensor]) -> None:
        """Do the same to parameters at some places among all; soonest where they are as before."""
        pointers = [
            0 if self._factors[place] is None else values[place].data_ptr() for place in places
        ]
        known = self._known.get(id(places))
        # The integers hold the memory that they lie in: at its place there is nothing else.
        if known is None or known.places is not places or known.pointers != pointers:
            together: Together = {}
            alone = [place for place in places if not self._add(together, place, values[place])]
            if len(self._known) >= OPTIMIZERS:
                self._known.clear()
            known = self._known[id(places)] = _Known(places, pointers, together, alone)
        _multiply(known.together)
        for place in known.alone:
            mask_in_place(values[place], self.masks[place])

    def _add(self, together: Together, place: int, value: Tensor) -> bool:
        factor, dtype = self._factors[place], value.dtype
        if factor is None or INTEGERS.get(dtype) is not factor.dtype:
            return False
        key = value.device, dtype
        if (pair := together.get(key)) is None:
            pair = together[key] = [], []
        pair[0].append(value.data.view(factor.dtype))
        pair[1].append(factor)
        return True


def _multiply(together: Together) -> None:
    for integers, factors in together.values():
        multiply_all(integers, factors)


def as_integers(values: Tensor) -> Tensor:
    """Return floats as integers of their size, in their memory."""
    return values.detach().view(INTEGERS[values.dtype])
