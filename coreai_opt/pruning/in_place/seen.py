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
    the mask takes away is kept aside until the step, over all passes that accumulate. A
    gradient scaler has unscaled the rest by then, and its factor is taken out of what is aside.

    Args:
        weights: the pruned weights.
    """

    def __init__(self, weights: MaskedWeights) -> None:
        self._weights = weights
        self._places = [
            place for place, each in enumerate(weights.tensors) if each.impl.sees_gradients()
        ]
        self._aside: dict[int, Tensor] = {}
        self.scaler: Any = None

    def __bool__(self) -> bool:
        return bool(self._places)

    @torch.no_grad()
    def put_aside(self) -> None:
        """Keep what masks are about to take away from the gradients of a backward pass."""
        weights = self._weights.now()
        for place in self._places:
            gradient = weights[place].grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            taken = torch.where(self._weights.tensors[place].impl.mask, 0, gradient)
            before = self._aside.get(place)
            self._aside[place] = taken if before is None else before.add_(taken)

    @torch.no_grad()
    def show(self, optimizer: Optimizer, places: Sequence[int]) -> None:
        """Give criteria the gradients that an optimizer is about to step with."""
        weights = self._weights.now()
        chosen = set(places)
        for place in self._places:
            gradient = weights[place].grad
            if place not in chosen or gradient is None or gradient.layout is not torch.strided:
                continue
            aside, impl = self._aside.pop(place, None), self._weights.tensors[place].impl
            if self._scales_itself(optimizer):
                gradient = gradient / self._scale(optimizer)
            if aside is not None:
                gradient = torch.where(impl.mask, gradient, aside / self._scale(optimizer))
            impl.see_gradient(self._weights.full(place), gradient)

    @staticmethod
    def _scales_itself(optimizer: Optimizer) -> bool:
        # Fused ones are called with scaled gradients, and are given the factor.
        return getattr(optimizer, "grad_scale", None) is not None

    def _scale(self, optimizer: Optimizer) -> Any:
        given = getattr(optimizer, "grad_scale", None)
        if given is not None:
            return given
        return 1.0 if self.scaler is None else self.scaler.get_scale()
