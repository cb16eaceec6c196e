"""Mask state: the entries of a mask in a state dict, and their metadata.

There are two entries to a mask, those of the documented API: ``mask`` (1 = keep) and ``step_count``
(int64). All else is what the schedule asks for at that step, and what a schedule does not say, as
how many weights have come back, stands in the ``_metadata`` of the state dict: others ignore it,
and it goes through ``torch.save``.
"""

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any, NamedTuple

import torch
from torch import Tensor

MASK, STEP_COUNT = "mask", "step_count"
METADATA = "pruning"  # in the _metadata of the module
EXTRA_STATE = "_extra_state"  # where all of it stood in the first checkpoints of this package


class ScheduleState(NamedTuple):
    """What a state dict says of a mask in its metadata.

    Attributes:
        step_count: the step that it was written at; what is of another step is not used.
        sparsity: that the mask was computed for, in [0, 1].
        scheduled: that the schedule has asked for, in [0, 1].
        revived: how many weights have come back.
    """

    step_count: int
    sparsity: float
    scheduled: float
    revived: int

    @classmethod
    def read(cls, metadata: Mapping[str, Any], step_count: int) -> "ScheduleState | None":
        """Return what the metadata of a module holds for a step, None for nothing."""
        values = metadata.get(METADATA)
        try:
            saved = cls(**values) if isinstance(values, Mapping) else None
        except TypeError:  # of a later version
            return None
        return saved if saved is not None and saved.step_count == step_count else None

    @classmethod
    def former(cls, numbers: Sequence[float]) -> "ScheduleState":
        """Return what the one entry of former checkpoints holds."""
        sparsity, scheduled, step_count, revived = numbers[:4]
        return cls(int(step_count), sparsity, scheduled, int(revived))


def step_of(value: Any) -> int:
    """Return the step that an entry holds; other than one whole number is a ValueError."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(number, int | float) and 0 <= number < 2**63 and number == int(number):
        return int(number)
    raise ValueError(f"{STEP_COUNT} is {value}; allowed: one whole number, 0 or more")


def mask_of(value: Any) -> Tensor:
    """Return the mask that an entry of any dtype holds, as bool; True = keep."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{MASK} is a {type(value).__name__}; allowed: a tensor of 0 and 1")
    if value.dtype is torch.bool:
        return value
    if not value.is_meta and not ((value == 0) | (value == 1)).all():
        raise ValueError(f"{MASK} has values other than 0 and 1; allowed: 1 = keep, 0 = pruned")
    return value.bool()


def share_of(zeros: int, total: int) -> float:
    """Return a sparsity that prunes so many of all elements, by floor.

    Example:
        >>> share_of(1, 4), floor(49 * share_of(1, 49))
        (0.25, 1)
    """
    share = zeros / max(total, 1)
    return share if floor(total * share) == zeros else (zeros + 0.5) / total
