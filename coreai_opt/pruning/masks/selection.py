"""Selection of the lowest scores of tensors on any device, as a stable sort would choose them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coreai_opt.pruning.masks import host as _host
from coreai_opt.pruning.masks.device_selection import lowest_on_device
from coreai_opt.pruning.masks.host_selection import (
    AT_ONCE,
    LARGEST,
    Hint,
    Keys,
    count_rows,
    mark_each,
    mark_kept,
)
from coreai_opt.pruning.masks.masking import INTEGERS

# Bits of infinity, or less, by the size of a float in bytes: those of bfloat16 are 0x7F80.
INFINITY = {2: 0x7C00, 4: 0x7F80_0000, 8: 0x7FF0_0000_0000_0000}


@dataclass(frozen=True)
class Magnitude:
    """The absolute values of a weight as scores, which are not computed before they are needed.

    Args:
        weight: any shape, real.
        kept: bool, of the same shape: what is False comes below all that is True; None = all True.
        hint: remembers where the mask was cut, for the next of the same weight.
    """

    weight: Tensor
    kept: Tensor | None = None
    hint: Hint | None = None

    @property
    def shape(self) -> torch.Size:
        return self.weight.shape

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def numel(self) -> int:
        return self.weight.numel()

    def tensor(self) -> Tensor:
        """Return the scores."""
        scores = self.weight.detach().abs()
        return scores if self.kept is None else torch.where(self.kept, scores, -torch.inf)


Scores = Tensor | Magnitude


def keep_highest(rows: Sequence[Scores], pruned: int) -> list[Tensor]:
    """Return masks that are False for the lowest ``pruned`` of all scores, and True for the others.

    Ties go by index in the order of the rows, lowest pruned first. NaN counts as infinity.

    Args:
        rows: one for each tensor, any shapes, devices and real dtypes; higher = keep.
        pruned: 0 to as many as there are scores.

    Returns:
        One bool tensor for each row, of its shape and on its device.
    """
    if pruned == 0 or pruned == sum(row.numel() for row in rows):
        like = [row.weight if isinstance(row, Magnitude) else row for row in rows]
        return [torch.full_like(each, pruned == 0, dtype=torch.bool) for each in like]
    if all(_host.on_host(row) for row in rows):
        return _on_host(rows, pruned)
    if len(rows) == 1:
        (scores,) = _comparable(rows)
        return [lowest_on_device(scores.flatten(), pruned).logical_not_().view(scores.shape)]
    joined = torch.cat([tensor.flatten().to(rows[0].device) for tensor in _comparable(rows)])
    kept = lowest_on_device(joined, pruned).logical_not_()
    parts = torch.split(kept, [row.numel() for row in rows])
    return [part.view(row.shape).to(row.device) for part, row in zip(parts, rows, strict=True)]


def keep_largest_of_each(weights: Tensor, kept: Tensor | None, pruned: int) -> Tensor:
    """Return the masks that ``keep_highest`` gives for the magnitudes of one row after the other.

    All rows are looked at together. On the CPU they are to stay in its cache.

    Args:
        weights: two dimensions, a row for each tensor; a float of 16 or 32 bits.
        kept: bool, of the same shape: what is False comes below all that is True; None = all True.
        pruned: how many of a row are False in its mask, 0 to its length.
    """
    if pruned in (0, weights.shape[1]):
        return torch.full_like(weights, pruned == 0, dtype=torch.bool)
    if not _host.on_host(weights):
        (scores,) = _comparable([Magnitude(weights, kept)])
        return lowest_on_device(scores, pruned).logical_not_()
    bits = weights.detach().view(INTEGERS[weights.dtype]).numpy()
    keys = np.bitwise_and(bits, LARGEST[bits.dtype.itemsize])
    if kept is not None:
        np.bitwise_or(keys, kept.view(torch.int8).numpy() - np.int8(1), out=keys)
    mask = torch.empty_like(weights, dtype=torch.bool)
    cuts = mark_each(keys, pruned, mask.numpy())
    for place in np.flatnonzero(cuts >= INFINITY[keys.dtype.itemsize]):  # as in a single one
        row = Magnitude(weights[place], None if kept is None else kept[place])
        (mask[place],) = keep_highest([row], pruned)
    return mask


def has_nan(tensor: Tensor) -> Tensor:
    """Return a bool without dimensions, on the tensor's device: whether NaN may be in it.

    False is certain. A tensor may overflow in its sum, or have infinities of both signs.
    """
    # A sum takes a sixteenth of the time of isnan().any() on the CPU.
    wide = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None
    return tensor.sum(dtype=wide).isnan()


def count_true(mask: Tensor) -> int | Tensor:
    """Return how many elements of a bool tensor are True; elsewhere than on the CPU a tensor.

    The CPU can be asked without waiting for anything, and numpy counts four times as fast.
    """
    is_plain = _host.on_host(mask) and type(mask) is Tensor
    return int(np.count_nonzero(mask.numpy())) if is_plain else mask.count_nonzero()


def count_regrown(before: Tensor, now: Tensor) -> int | Tensor:
    """Return how many elements are True in a mask that were not in the one from before."""
    plain = type(before) is Tensor and type(now) is Tensor and _host.on_host(now)
    if not (plain and before.is_contiguous() and now.is_contiguous()):
        return count_true(now > before)
    old, new = before.view(-1).numpy(), now.view(-1).numpy()
    # A part at a time: in the cache, and without a third mask.
    parts = [slice(begin, begin + AT_ONCE) for begin in range(0, len(new), AT_ONCE)]
    return sum(int(np.count_nonzero(new[part] > old[part])) for part in parts)


def count_true_of_each(rows: Tensor) -> Sequence[int | Tensor]:
    """Return how many elements of each row of a bool tensor are True, as ``count_true`` does."""
    if not _host.on_host(rows):
        return rows.sum(1).unbind()
    counts: list[int] = count_rows(rows.numpy()).tolist()
    return counts


def _on_host(rows: Sequence[Scores], pruned: int) -> list[Tensor]:
    masks = [torch.empty(row.shape, dtype=torch.bool) for row in rows]
    flat = [mask.view(-1).numpy() for mask in masks]
    if (keys := _keys_of_bits(rows)) is not None:
        (first, *others) = rows
        hint = first.hint if isinstance(first, Magnitude) and not others else None
        cut = mark_kept(keys, pruned, flat, hint)
        # The bits of NaN are above those of infinity, and they are to tie.
        if cut < INFINITY[keys[0].array.dtype.itemsize]:
            return masks
    keys = [Keys(tensor.reshape(-1).numpy()) for tensor in _comparable(rows)]
    mark_kept(keys, pruned, flat)
    return masks


def _keys_of_bits(rows: Sequence[Scores]) -> list[Keys] | None:
    magnitudes = [
        row for row in rows if isinstance(row, Magnitude) and row.weight.dtype in INTEGERS
    ]
    if len(magnitudes) < len(rows) or len({row.weight.dtype for row in magnitudes}) > 1:
        return None
    return [
        Keys(
            row.weight.detach().contiguous().view(-1).view(INTEGERS[row.weight.dtype]).numpy(),
            bits=True,
            kept=None if row.kept is None else _bytes(row.kept),
        )
        for row in magnitudes
    ]


def _bytes(kept: Tensor) -> npt.NDArray[np.int8]:
    return kept.contiguous().view(-1).view(torch.int8).numpy()


def _comparable(rows: Sequence[Scores]) -> list[Tensor]:
    """Return scores of one dtype that can be compared everywhere, without NaN."""
    tensors = [row.tensor() if isinstance(row, Magnitude) else row.detach() for row in rows]
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    if dtype is torch.bool:
        dtype = torch.uint8
    if dtype in (torch.float16, torch.bfloat16) and _host.on_host(rows[0]):
        dtype = torch.float32  # numpy has no bfloat16, and compares float16 one by one
    return [_without_nan(tensor.to(dtype)) for tensor in tensors]


def _without_nan(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if _host.on_host(tensor) and not has_nan(tensor):
        return tensor
    return tensor.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
