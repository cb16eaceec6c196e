"""State dict of in-place masks: plain tensors and values, one bit a mask element."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coreai_opt.pruning._text import listed
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.in_place.weights import MaskedWeights
from coreai_opt.pruning.model.targets import PrunedTensor, Target
from coreai_opt.pruning.spec.mask_state import MASK, STEP_COUNT
from coreai_opt.pruning.spec.prune_impl import PruneImplBase

FORMAT = 1
BYTE = 8


def packed(mask: Tensor) -> Tensor:
    """Return a bool tensor as bits in a uint8 tensor of one dimension, the first bit highest.

    Example:
        >>> packed(torch.tensor([True, False, False, False, False, False, False, True, True]))
        tensor([129, 128], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits(mask.detach().cpu().contiguous().view(-1).numpy()))


def unpacked(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the bool tensor of a shape that ``packed`` was given."""
    count = int(np.prod(shape, dtype=np.int64))
    flat = np.unpackbits(bits.cpu().numpy(), count=count).astype(bool)
    return torch.from_numpy(flat).view(shape)


@torch.no_grad()
def masks_state(weights: MaskedWeights, step_count: int) -> dict[str, Any]:
    """Return masks, dense values, what the schedules asked for, and the clock.

    It holds tensors, numbers and strings alone. Dense values are those of what is pruned, in the
    order of the elements; none where weights may not come back.
    """
    masks: dict[str, Any] = {}
    for tensor, dense in zip(weights.tensors, weights.dense, strict=True):
        impl = tensor.impl
        one: dict[str, Any] = {
            "bits": packed(impl.mask),
            "shape": list(tensor.shape),
            "sparsity": impl.sparsity,
            "scheduled": impl.scheduled,
            "revived": impl.regrown,
        }
        if impl.floor is not None:
            one["floor"] = impl.floor
        if dense is not None:
            one["dense"] = dense[~impl.mask].detach().cpu()
        if own := _own_state(impl):
            one["criterion"] = own
        masks[tensor.name] = one
    return {"format": FORMAT, STEP_COUNT: step_count, "masks": masks}


def under_first_names(state: Mapping[str, Any], targets: Iterable[Target]) -> dict[str, Any]:
    """Return a state in which a weight of several names (tied) has the first one alone."""
    mask_names(state)
    first = {holder.name: target.name for target in targets for holder in target.holders}
    masks: dict[str, Any] = {}
    for name, one in state["masks"].items():
        masks.setdefault(first.get(name, name), one)
    return {**state, "masks": masks}


def mask_names(state: Mapping[str, Any]) -> set[str]:
    """Return the names of the weights that a state has masks of; refuse what is no such state."""
    if lacking := [key for key in ("masks", STEP_COUNT) if key not in state]:
        raise PruningError(
            f"this is no state of masks beside a model: it has no {lacking[0]!r}; allowed: what "
            "state_dict() of an InPlacePruner has returned"
        )
    if state.get("format") != FORMAT:
        raise PruningError(
            f"the state of the masks has format {state.get('format')!r}; allowed: {FORMAT}, that "
            "of this version"
        )
    return set(state["masks"])


@torch.no_grad()
def load_masks(weights: MaskedWeights, state: Mapping[str, Any]) -> None:
    """Take masks and dense values from a state that fits; the weights are not touched.

    The clock must stand at the step of the state.
    """
    current = weights.refresh()
    for place, tensor in enumerate(weights.tensors):
        one, impl = state["masks"][tensor.name], tensor.impl
        impl.mask.copy_(unpacked(one["bits"], tensor.shape))
        impl.floor = one.get("floor")
        if "sparsity" in one:
            impl.restore(one["sparsity"], one["scheduled"], one["revived"])
        else:  # of a state dict that was rebuilt, which holds the step alone
            impl.restore(*impl.sparsity_at_step(), 0)
        if own := one.get("criterion"):
            step = torch.tensor(state[STEP_COUNT], dtype=torch.int64)
            impl.load_state_dict({STEP_COUNT: step, **own}, strict=False)
        weights.dense[place] = None
        if "dense" in one and weights.keeps_dense:
            dense = torch.zeros_like(current[place])
            dense[~impl.mask] = one["dense"].to(dense.device, dense.dtype)
            weights.dense[place] = dense
    weights.masks_changed()


def check_fits(
    weights: MaskedWeights, state: Mapping[str, Any], unmasked: Collection[str] = ()
) -> None:
    """Raise a PruningError that says in what a state is not one of these weights.

    ``unmasked`` are the names of the weights that the config prunes and the state has no masks of.
    """
    theirs = mask_names(state)
    ours = {tensor.name for tensor in weights.tensors} | set(unmasked)
    common = [tensor for tensor in weights.tensors if tensor.name in theirs]
    found = [_difference(tensor, state["masks"][tensor.name]) for tensor in common]
    parts = {
        "it has no mask of": ours - theirs,
        "it has a mask of what stays dense here": theirs - ours,
    }
    texts = [f"{what} {listed(sorted(names))}" for what, names in parts.items() if names]
    if differing := [text for text in found if text]:
        texts.append(listed(differing, str, "; "))
    if texts:
        raise PruningError(
            f"the saved masks do not fit what this config prunes: {'; '.join(texts)}; allowed: "
            "those of a training with this config"
        )


def _difference(tensor: PrunedTensor, one: Mapping[str, Any]) -> str | None:
    """Return in what the saved state of a mask differs from the mask here; None = it fits."""
    if one["shape"] != list(tensor.shape):
        return f"{tensor.name!r} is {one['shape']} in it and {list(tensor.shape)} here"
    bits, total = one["bits"], tensor.impl.mask.numel()
    whole = bits.numel() == -(-total // BYTE)
    if whole and "dense" in one:
        kept = int(unpacked(bits, tensor.shape).sum())
        whole = one["dense"].numel() == total - kept
    if not whole:
        return f"the mask of {tensor.name!r} is damaged: it is longer or shorter than its shape"
    own = [key for key in tensor.impl.state_dict() if key not in (MASK, STEP_COUNT)]
    given = list(one.get("criterion", own))
    if given == own:
        return None
    return f"the criterion of {tensor.name!r} keeps {given} in it and {own} here"


def _own_state(impl: PruneImplBase) -> dict[str, Any]:
    """Return what a criterion keeps besides its mask."""
    return {
        key: value.detach().cpu() if isinstance(value, Tensor) else value
        for key, value in impl.state_dict().items()
        if key not in (MASK, STEP_COUNT)
    }
