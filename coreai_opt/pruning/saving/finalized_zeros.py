"""Zeros of a finalized model, compared with the masks that were in force."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coreai_opt.pruning.model.targets import PrunedTensor


class MaskedZeros(NamedTuple):
    """The shape of a mask, and how many elements it prunes."""

    shape: tuple[int, ...]
    pruned: int


@torch.no_grad()
def masked_zeros(tensors: Iterable[PrunedTensor]) -> dict[str, MaskedZeros]:
    """Return, by the name of each weight, what its mask prunes."""
    return {
        tensor.name: MaskedZeros(tensor.shape, int(torch.count_nonzero(~tensor.impl.mask)))
        for tensor in tensors
        if not tensor.impl.mask.is_meta
    }


@torch.no_grad()
def missing_zeros(
    model: nn.Module, masked: Mapping[str, MaskedZeros]
) -> dict[str, tuple[int, int]]:
    """Return the weights of a plain model that have fewer zeros than a mask prunes, with both.

    The model is a copy of the pruned one or of a part of it, or an average of it, without masks.
    """
    weights = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for name, mask in masked.items():
        weight = _named_alike(name, mask.shape, weights)
        if weight is None or weight.is_meta:
            continue
        zeros = weight.numel() - int(torch.count_nonzero(weight))
        if zeros < mask.pruned:
            found[name] = zeros, mask.pruned
    return found


def _named_alike(name: str, shape: tuple[int, ...], weights: Mapping[str, Tensor]) -> Tensor | None:
    """Return the weight of that shape and name, which may stand deeper or less deep there.

    An average wraps the model (``module.``), and may be of a part of it: of ``net`` in a module.
    """
    alike = [
        known
        for known, weight in weights.items()
        if weight.shape == shape
        and (f".{known}".endswith(f".{name}") or name.endswith(f".{known}"))
    ]
    return weights[max(alike, key=len)] if alike else None
