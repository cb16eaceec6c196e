"""Unmasked gradients for criteria, of pruned weights as well."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.optim import Optimizer

from coreai_opt.pruning.in_place.optimizers import is_skipped
from coreai_opt.pruning.in_place.weights import MaskedWeights


class _Aside(NamedTuple):
    """A gradient as it was before it was masked."""

    whole: Tensor
    of: "ref[Tensor]"


class SeenGradients:
    """Shows criteria the gradient that an optimizer steps with, before it is masked.

    At the end of a backward pass gradients are masked early, for clipping to see them masked; a
    copy of the whole gradient is kept aside until the step, as clipping makes smaller what the mask
    leaves. A pass that accumulates begins with what the mask took away back in its place, so that
    ranks reduce whole gradients. What is aside is scaled where a gradient scaler is used.

    Args:
        weights: the pruned weights.

    Attributes:
        places: of the weights whose criteria look at gradients.
        scalers: the gradient scaler of an optimizer, by its id; None = none is used.
    """

    def __init__(self, weights: MaskedWeights) -> None:
        self._weights = weights
        self.places = frozenset(
            place for place, each in enumerate(weights.tensors) if each.impl.sees_gradients()
        )
        self._aside: dict[int, _Aside] = {}
        self.scalers: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.places)

    @torch.no_grad()
    def put_aside(self) -> None:
        """Keep the gradients of a backward pass, which are about to be masked."""
        weights = self._weights.now()
        for place in self.places:
            gradient = weights[place].grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            if place not in self._aside:  # else this pass has not reached it
                self._aside[place] = _Aside(gradient.detach().clone(), ref(gradient))

    @torch.no_grad()
    def give_back(self, place: int, gradient: Tensor | None) -> None:
        """Put what was kept aside back into a gradient; None = that has gone, as this is to."""
        aside = self._aside.pop(place, None)
        # One with a graph is part of a loss to come, and stays.
        if aside is not None and gradient is not None and not gradient.requires_grad:
            mask = self._weights.tensors[place].impl.mask
            gradient.copy_(torch.where(mask, gradient, aside.whole))

    @torch.no_grad()
    def show(self, optimizer: Optimizer, places: Sequence[int]) -> None:
        """Give criteria the gradients that an optimizer is about to step with."""
        weights = self._weights.now()
        skips = is_skipped(optimizer)
        for place in self.places.intersection(places):
            gradient = weights[place].grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            aside, impl = self._aside.pop(place, None), self._weights.tensors[place].impl
            if skips:
                continue
            seen = gradient.detach()
            if _scales_itself(optimizer):
                seen = seen / self._scale(optimizer)
            if aside is not None:
                whole = aside.whole / self._scale(optimizer)
                is_replaced = aside.of() is not gradient
                seen = torch.where(impl.mask, seen, whole) if is_replaced else whole
            impl.see_gradient(self._weights.full(place), seen)

    def _scale(self, optimizer: Optimizer) -> Any:
        if _scales_itself(optimizer):
            return optimizer.grad_scale  # type: ignore[attr-defined]
        scaler = self.scalers.get(id(optimizer))
        return 1.0 if scaler is None else scaler.get_scale()


def _scales_itself(optimizer: Optimizer) -> bool:
    # Fused ones are called with scaled gradients, and are given the factor.
    return getattr(optimizer, "grad_scale", None) is not None
