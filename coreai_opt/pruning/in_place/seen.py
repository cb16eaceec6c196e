"""Gradients for criteria: whole ones, of pruned weights as well, whenever they are masked."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from coreai_opt.pruning.in_place.weights import MaskedWeights

__all__ = ["SeenGradients"]


class SeenGradients:
    """Shows criteria the gradient that an optimizer steps with, before it is masked.

    At the end of a backward pass gradients are masked early, for clipping to see them masked; what
    the mask takes away is kept aside until the step. A pass that accumulates begins with it back in
    its place, so that ranks reduce whole gradients. A gradient scaler has unscaled the rest by the
    time of the step, and its factor is taken out of what is aside.

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
        self._aside: dict[int, Tensor] = {}
        self.scalers: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.places)

    @torch.no_grad()
    def put_aside(self) -> None:
        """Keep what masks are about to take away from the gradients of a backward pass."""
        weights = self._weights.now()
        for place in self.places:
            gradient = weights[place].grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            taken = torch.where(self._weights.tensors[place].impl.mask, 0, gradient.detach())
            before = self._aside.get(place)
            self._aside[place] = taken if before is None else before.add_(taken)

    @torch.no_grad()
    def give_back(self, place: int, gradient: Tensor | None) -> None:
        """Put what was kept aside back into a gradient; None = that has gone, as this is to."""
        aside = self._aside.pop(place, None)
        # One with a graph is part of a loss to come, and stays.
        if aside is not None and gradient is not None and not gradient.requires_grad:
            gradient.add_(aside)

    @torch.no_grad()
    def show(self, optimizer: Optimizer, places: Sequence[int]) -> None:
        """Give criteria the gradients that an optimizer is about to step with."""
        weights = self._weights.now()
        is_skipped = _is_skipped(optimizer)
        for place in self.places.intersection(places):
            gradient = weights[place].grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            aside, impl = self._aside.pop(place, None), self._weights.tensors[place].impl
            if is_skipped:
                continue
            gradient = gradient.detach()
            if _scales_itself(optimizer):
                gradient = gradient / self._scale(optimizer)
            if aside is not None:
                gradient = torch.where(impl.mask, gradient, aside / self._scale(optimizer))
            impl.see_gradient(self._weights.full(place), gradient)

    def _scale(self, optimizer: Optimizer) -> Any:
        if _scales_itself(optimizer):
            return optimizer.grad_scale  # type: ignore[attr-defined]
        scaler = self.scalers.get(id(optimizer))
        return 1.0 if scaler is None else scaler.get_scale()


def _scales_itself(optimizer: Optimizer) -> bool:
    # Fused ones are called with scaled gradients, and are given the factor.
    return getattr(optimizer, "grad_scale", None) is not None


def _is_skipped(optimizer: Optimizer) -> bool:
    # Fused ones are called with infinite gradients too, and do nothing then.
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
