"""What is there: sparsity by counted zeros."""

from dataclasses import dataclass

import torch
from torch import nn

from coreai_opt.pruning.targets import weight_tensors

__all__ = ["LayerSparsity", "SparsityReport", "count_sparsity"]


@dataclass(frozen=True)
class LayerSparsity:
    """One weight: how many of its elements are not zero, and what was asked.

    ``scheduled`` is the sparsity that its schedule asks for now and ``target`` the one it is to
    arrive at; both are None for a layer that is left dense. Under a global threshold they are those
    of all layers together. ``revived`` is how many pruned weights have come back so far.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    nonzero: int
    scheduled: float | None
    target: float | None
    revived: int = 0

    @property
    def sparsity(self) -> float:
        """Share of zeros, counted; 0 for an empty tensor."""
        return 1 - self.nonzero / self.elements if self.elements else 0.0


@dataclass(frozen=True)
class SparsityReport:
    """The prunable weights of a model; the totals are over those that carry a mask, if any does."""

    layers: list[LayerSparsity]

    @property
    def counted(self) -> list[LayerSparsity]:
        """The layers that carry a mask, or all where none does (a dense control)."""
        return [layer for layer in self.layers if layer.target is not None] or self.layers

    @property
    def elements(self) -> int:
        return sum(layer.elements for layer in self.counted)

    @property
    def nonzero(self) -> int:
        return sum(layer.nonzero for layer in self.counted)

    @property
    def revived(self) -> int:
        """How many pruned weights have come back so far."""
        return sum(layer.revived for layer in self.counted)

    @property
    def achieved(self) -> float:
        """Share of zeros, counted."""
        return 1 - self.nonzero / self.elements if self.elements else 0.0

    @property
    def scheduled(self) -> float:
        """The sparsity that the schedules ask for now, weighted by elements."""
        return self._mean("scheduled")

    @property
    def target(self) -> float:
        """The sparsity to arrive at, weighted by elements; 0 for a dense model."""
        return self._mean("target")

    def _mean(self, field: str) -> float:
        asked = sum((getattr(layer, field) or 0.0) * layer.elements for layer in self.counted)
        return asked / self.elements if self.elements else 0.0


@torch.no_grad()
def count_sparsity(model: nn.Module) -> SparsityReport:
    """Count the zeros in the effective weights of a model, pruned or not.

    The counts of all layers are gathered on the device and copied to the host once.
    """
    weights = weight_tensors(model)
    values = [weight.value() for weight in weights]
    counts = [torch.count_nonzero(value) for value in values]
    nonzeros = torch.stack(counts).tolist() if counts else []
    layers = []
    for weight, value, nonzero in zip(weights, values, nonzeros, strict=True):
        shape, elements, impl = tuple(value.shape), value.numel(), weight.impl
        if impl is None:
            layers.append(LayerSparsity(weight.name, shape, elements, nonzero, None, None))
            continue
        asked = impl.sparsity, impl.target_sparsity, impl.revived
        layers.append(LayerSparsity(weight.name, shape, elements, nonzero, *asked))
    return SparsityReport(layers)
