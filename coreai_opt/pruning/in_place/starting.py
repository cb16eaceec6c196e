"""Masks from zeros: the zeros of a sparse model as first masks, checked against the config."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from coreai_opt.pruning._text import listed
from coreai_opt.pruning.errors import PreparationWarning, PruningError
from coreai_opt.pruning.masks.of_scores import compute_mask
from coreai_opt.pruning.masks.selection import count_true
from coreai_opt.pruning.model.targets import GivenMask, PrunedTensor, Target
from coreai_opt.pruning.scheduling.groups import MaskGroup
from coreai_opt.pruning.scheduling.scheduled_masks import refuse_nan
from coreai_opt.pruning.spec.mask_state import share_of
from coreai_opt.pruning.spec.schemes import PruningScheme, Unstructured, prune_count


class LackingZeros(NamedTuple):
    """Weights whose zeros are too few, or not in the pattern that is asked.

    Attributes:
        names: of one weight, or of those that share one target.
        zeros: how many zeros they have.
        elements: how many elements.
        asked: how many zeros are asked.
        scheme: the pattern in which they are asked.
    """

    names: tuple[str, ...]
    zeros: int
    elements: int
    asked: int
    scheme: PruningScheme

    def __str__(self) -> str:
        named = listed(self.names)
        together = " together" if len(self.names) > 1 else ""
        asked = f"{self.asked:,} ({self.asked / self.elements:.2%})"
        if self.zeros >= self.asked:
            asked += f", in the pattern {self.scheme.model_dump(mode='json')}"
        return (
            f"{named}{together}: {self.zeros:,} zeros of {self.elements:,} "
            f"({self.zeros / self.elements:.2%}), asked {asked}"
        )


class TooFewZerosError(PruningError):
    """Zeros are to be kept as masks, without a schedule, and they are fewer than the target.

    Attributes:
        lacking: the weights, what they have and what is asked.
    """

    def __init__(self, lacking: Sequence[LackingZeros]) -> None:
        self.lacking = list(lacking)
        super().__init__(
            f"masks_from='zeros' keeps the zeros of weights for good where there is no schedule, "
            f"and some are not what the config asks for: {listed(lacking, str, '; ')}"
            f"; allowed: a sparsity_schedule, which goes on from those zeros, a lower "
            "target_sparsity or no pattern, or None for layers that are to stay dense"
        )


class AllZeroWarning(PreparationWarning):
    """Weights are zero in every element, and stay so: nothing trains them.

    Attributes:
        names: of the weights.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"masks_from='zeros' keeps weights at 0 that are 0 in every element: "
            f"{listed(names)}; one that is to be trained from 0 is "
            "left out with module_name_configs={name: None}"
        )


def with_zeros(targets: Sequence[Target]) -> list[Target]:
    """Return targets whose given masks are the zeros that their weights have now."""
    return [replace(target, given=_zeros_of(target)) for target in targets]


def begin_at_zeros(groups: Sequence[MaskGroup]) -> None:
    """Check zeros that were taken as masks, and give masks that share a threshold one sparsity.

    Raises:
        TooFewZerosError: weights without a schedule have fewer zeros than a config asks for, or not
            in its pattern.
        PruningError: there is no zero at all, and no schedule that would make one.
        DivergedWeightError: a weight has NaN.

    Warns:
        AllZeroWarning: weights are zero in every element.
        PreparationWarning: there is no zero at all.
    """
    tensors = [tensor for group in groups for tensor in group.tensors]
    refuse_nan([[tensor] for tensor in tensors])
    still = [group for group in groups if group.schedule is None]
    if lacking := [one for group in still for one in _lacking(group)]:
        raise TooFewZerosError(lacking)
    if tensors and not any(tensor.impl.floor for tensor in tensors):
        said = "masks_from='zeros' finds no zero in the weights that the config prunes"
        if len(still) == len(groups):
            raise PruningError(
                f"{said}, and no schedule that would make some; allowed: sparse weights, loaded "
                "before, or a sparsity_schedule"
            )
        warnings.warn(PreparationWarning(f"{said}: the schedule makes all of them"), stacklevel=4)
    if empty := [each.name for each in tensors if prod(each.shape) and not each.impl.mask.any()]:
        warnings.warn(AllZeroWarning(empty), stacklevel=4)
    for group in groups:
        group.begin_at_floors()


@torch.no_grad()
def _zeros_of(target: Target) -> GivenMask:
    weight, spec = target.weight.detach(), target.spec
    if weight.is_meta:
        raise PruningError(
            f"{target.name!r} is on the meta device, where it has no zeros to take as a mask; "
            "allowed: weights that have been loaded"
        )
    kept = weight != 0
    asked = spec.pruning_scheme.target_for(spec.target_sparsity)
    floor = _floor(kept, asked, spec.pruning_scheme)
    return GivenMask(kept, floor, asked if target.schedule is None else 0.0, floor)


def _floor(kept: Tensor, asked: float, scheme: PruningScheme) -> float:
    """Return the sparsity whose pattern the zeros fill; half an element where they fill none."""
    elements = kept.numel()
    zeros = elements - int(count_true(kept))
    if zeros == 0:
        return 0.0
    for share in (share_of(zeros, elements), asked):
        if share > 0 and _fills(kept, zeros, share, scheme):
            return share
    return 0.5 / elements


def _fills(kept: Tensor, zeros: int, share: float, scheme: PruningScheme) -> bool:
    """Return whether zeros are where a scheme prunes, if it prunes zeros first."""
    if type(scheme) is Unstructured:
        return prune_count(kept.numel(), share) <= zeros
    pattern = compute_mask(kept.float(), share, scheme)
    return not bool((kept & ~pattern).any())


def _lacking(group: MaskGroup) -> Iterator[LackingZeros]:
    shares = group.allocated(group.target_sparsity)
    pairs = [
        (tensor, share)
        for tensor, share in zip(group.tensors, shares, strict=True)
        if _is_asked(tensor)
    ]
    together = [pairs] if group.allocation != "uniform" else [[pair] for pair in pairs]
    for members in together:
        tensors = [tensor for tensor, _ in members]
        sizes = [prod(tensor.shape) for tensor in tensors]
        asked = sum(tensor.pruned_at(share) for tensor, share in members)
        if group.allocation == "global":
            asked = prune_count(sum(sizes), group.target_sparsity)
        if sum(tensor.pruned_at(tensor.impl.floor or 0.0) for tensor in tensors) < asked:
            zeros = sum(sizes) - sum(int(count_true(tensor.impl.mask)) for tensor in tensors)
            names, scheme = [tensor.name for tensor in tensors], tensors[0].impl.spec.pruning_scheme
            yield LackingZeros(tuple(names), zeros, sum(sizes), asked, scheme)


def _is_asked(tensor: PrunedTensor) -> bool:
    """Return whether a config says how far, or in what pattern; else what is there is kept."""
    return bool(tensor.impl.spec.model_fields_set & {"target_sparsity", "pruning_scheme"})
