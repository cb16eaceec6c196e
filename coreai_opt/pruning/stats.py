"""What is there: sparsity by counted zeros."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from coreai_opt.pruning.targets import prunable_parameters, pruned_tensors

__all__ = ["LayerSparsity", "SparsityReport", "count_sparsity"]


@dataclass(frozen=True)
class LayerSparsity:
    """One weight: how many of its elements are not zero, and what was asked.

    ``scheduled`` is the sparsity that its schedule asks for now and ``target`` the one it is to
    arrive at; both are None for a layer that is left dense.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    nonzero: int
    scheduled: float | None
    target: float | None

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
    impls = {tensor.name: tensor.impl for tensor in pruned_tensors(model)}
    found: list[tuple[str, tuple[int, ...], int]] = []
    counts: list[Tensor] = []
    for module_name, module, parameter in prunable_parameters(model):
        weight: Any = getattr(module, parameter)
        if is_lazy(weight):
            continue
        name = f"{module_name}.{parameter}".lstrip(".")
        found.append((name, tuple(weight.shape), weight.numel()))
        counts.append(torch.count_nonzero(weight))
    nonzeros = torch.stack(counts).tolist() if counts else []
    layers = []
    for (name, shape, elements), nonzero in zip(found, nonzeros, strict=True):
        impl = impls.get(name)
        scheduled = None if impl is None else impl.sparsity
        target = None if impl is None else impl.spec.target_sparsity
        layers.append(LayerSparsity(name, shape, elements, nonzero, scheduled, target))
    return SparsityReport(layers)
