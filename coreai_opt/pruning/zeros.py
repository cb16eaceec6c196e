"""Zeros of a finalized model, held against the masks that were in force."""

from collections.abc import Iterable

import torch
from torch import nn

from coreai_opt.pruning.targets import PrunedTensor

__all__ = ["missing_zeros"]

WRAPPED = "module."  # by AveragedModel and its like


@torch.no_grad()
def missing_zeros(model: nn.Module, tensors: Iterable[PrunedTensor]) -> dict[str, tuple[int, int]]:
    """Return the weights of a plain model that have fewer zeros than a mask prunes.

    Args:
        model: a copy of the pruned model, or an average of it, without masks.
        tensors: the weights that are pruned, of the model that was trained.

    Returns:
        Name of the weight -> its zeros, and how many the mask prunes.
    """
    weights = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for tensor in tensors:
        weight = weights.get(tensor.name, weights.get(f"{WRAPPED}{tensor.name}"))
        if weight is None or weight.shape != tensor.impl.mask.shape or weight.is_meta:
            continue
        zeros = weight.numel() - int(torch.count_nonzero(weight))
        pruned = weight.numel() - int(torch.count_nonzero(tensor.impl.mask))
        if zeros < pruned:
            found[tensor.name] = zeros, pruned
    return found
