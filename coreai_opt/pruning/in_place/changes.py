"""Change of masks: clears weights and moments that were pruned, or have just come back."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from coreai_opt.pruning._torch_internals import multiply_all
from coreai_opt.pruning.masks import host as _host
from coreai_opt.pruning.masks.masking import INTEGERS, mask_in_place

# In a ramp few elements change at once: they are looked up where they are fewer than 1 in so many.
RARE = 64


class MaskChange:
    """What becomes of masks; made before they change.

    The masks are of one shape if they are several, and changed in place afterwards. ``now`` are the
    masks by the end, a row for each if they are several.
    """

    now: Tensor

    def __init__(self, masks: Sequence[Tensor]) -> None:
        self._masks = masks
        # What was there before, and at the end what is True in both.
        self._kept = torch.stack(list(masks)) if len(masks) > 1 else masks[0].clone()
        self._places: Tensor | None = None

    def has_happened(self) -> None:
        """Take note that the masks have their new values."""
        if len(self._masks) > 1:
            self.now = torch.stack(list(self._masks))
        else:
            (self.now,) = self._masks
            self._places = _different(self._kept, self.now)
        self._kept &= self.now

    @torch.no_grad()
    def clear(self, values: Iterable[tuple[int, Tensor]]) -> None:
        """Set values to +0.0 where they have just been pruned or have come back.

        Each stands with the place of its mask, and has its shape; what was pruned before is 0.
        """
        if len(self._masks) > 1:
            self._clear_together(values)
            return
        for _, value in values:
            if self._places is None or not value.is_contiguous() or value.device.type != "cpu":
                mask_in_place(value, self._kept.to(value.device))
            else:
                value.data.view(-1).index_fill_(0, self._places, 0)

    def _clear_together(self, values: Iterable[tuple[int, Tensor]]) -> None:
        together: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        rows: dict[torch.dtype, Sequence[Tensor]] = {}
        for place, value in values:
            integer = INTEGERS.get(value.dtype)
            if integer is None or value.device != self._kept.device:
                mask_in_place(value, self._kept[place].to(value.device))
                continue
            if integer not in rows:
                rows[integer] = self._kept.to(integer).unbind()
                together[integer] = [], []
            together[integer][0].append(value.data.view(integer))
            together[integer][1].append(rows[integer][place])
        for integers, factors in together.values():
            multiply_all(integers, factors)

    @torch.no_grad()
    def put_on(self, weight: Tensor, dense: Tensor | None, is_masked: bool) -> None:
        """Mask a weight by the one mask as it is now, and give what has come back its value.

        Autograd does not get to know of it.

        Args:
            weight: changed in place.
            dense: its dense values, None = nothing comes back.
            is_masked: whether it was masked by the mask from before.
        """
        (mask,), places, weight = self._masks, self._places, weight.data
        if is_masked and places is not None and weight.is_contiguous():
            if dense is None:
                weight.view(-1).index_fill_(0, places, 0)
                return
            there = torch.where(mask.view(-1)[places], dense.reshape(-1)[places], 0)
            weight.view(-1).index_copy_(0, places, there)
        elif dense is None:
            mask_in_place(weight, mask)
        else:
            weight.copy_(dense)
            mask_in_place(weight, mask)


def _different(before: Tensor, now: Tensor) -> Tensor | None:
    """Return the places at which two masks differ; None = they are many, or on a device."""
    if not _host.on_host(now) or not (now.is_contiguous() and before.is_contiguous()):
        return None
    differs = before.view(-1).numpy() ^ now.view(-1).numpy()
    if np.count_nonzero(differs) * RARE > len(differs):
        return None
    return torch.from_numpy(np.flatnonzero(differs))
