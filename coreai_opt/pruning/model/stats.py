"""Sparsity report: counted zeros of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coreai_opt.pruning.model.dense_weights import DenseType, by_type, kind_of, own_matrices
from coreai_opt.pruning.model.targets import WeightTensor, weight_tensors


@dataclass(frozen=True)
class LayerSparsity:
    """One weight: how many of its elements are not zero, and what was asked.

    ``scheduled`` is the sparsity that its schedule asks for now and ``target`` the one it is to
    arrive at; both are None for a layer that is left dense. Under a global threshold they are those
    of all layers together. ``regrown`` is how many pruned weights have come back so far.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    nonzero: int
    scheduled: float | None
    target: float | None
    regrown: int = 0

    @property
    def sparsity(self) -> float:
        """Share of zeros, counted; 0 for an empty tensor."""
        return 1 - self.nonzero / self.elements if self.elements else 0.0


@dataclass(frozen=True)
class SparsityReport:
    """The weights of a model; the totals are over those that carry a mask, if any does.

    Attributes:
        layers: the weights of prunable layers, and all that carry a mask.
        left_dense: all weights of two or more dimensions that carry no mask, by the type of their
            module; those of prunable layers among them.
    """

    layers: list[LayerSparsity]
    left_dense: tuple[DenseType, ...] = ()

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
    def regrown(self) -> int:
        """How many pruned weights have come back so far."""
        return sum(layer.regrown for layer in self.counted)

    @property
    def achieved(self) -> float:
        """Share of zeros, counted."""
        return 1 - self.nonzero / self.elements if self.elements else 0.0

    @property
    def all_elements(self) -> int:
        """Elements of all weights of two or more dimensions, pruned or not."""
        masked = sum(layer.elements for layer in self.layers if layer.target is not None)
        return masked + sum(kind.elements for kind in self.left_dense)

    @property
    def all_nonzero(self) -> int:
        """Those of them that are not zero, counted."""
        masked = sum(layer.nonzero for layer in self.layers if layer.target is not None)
        return masked + sum(kind.nonzero for kind in self.left_dense)

    @property
    def of_all_weights(self) -> float:
        """Share of zeros among all weights of two or more dimensions, counted."""
        return 1 - self.all_nonzero / self.all_elements if self.all_elements else 0.0

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
    others = _others(model, weights)
    values = [*(weight.value() for weight in weights), *(value for _, value in others)]
    nonzeros = count_nonzeros(values)
    layers = []
    for weight, value, nonzero in zip(weights, values, nonzeros, strict=False):
        shape, elements, impl = tuple(value.shape), value.numel(), weight.impl
        if impl is None:
            layers.append(LayerSparsity(weight.name, shape, elements, nonzero, None, None))
            continue
        asked = impl.sparsity, impl.target_sparsity, impl.regrown
        layers.append(LayerSparsity(weight.name, shape, elements, nonzero, *asked))
    dense = [
        (kind_of(weight.holders[0].module), layer.elements, layer.nonzero)
        for weight, layer in zip(weights, layers, strict=True)
        if layer.target is None
    ]
    dense += [
        (kind, value.numel(), nonzero)
        for (kind, value), nonzero in zip(others, nonzeros[len(weights) :], strict=True)
    ]
    return SparsityReport(layers, by_type(dense))


def count_nonzeros(tensors: Sequence[Tensor]) -> list[int]:
    """Count on the devices, and copy the counts to the host at once."""
    counts = [torch.count_nonzero(tensor) for tensor in tensors]
    return torch.stack([n.to(counts[0].device) for n in counts]).tolist() if counts else []


def _others(model: nn.Module, weights: Sequence[WeightTensor]) -> list[tuple[str, Tensor]]:
    """Return the weights of two or more dimensions that are not among the given ones, with types.

    A tensor that several modules share is there once.
    """
    known = {(id(one.module), one.parameter) for weight in weights for one in weight.holders}
    found: dict[int, tuple[str, Tensor]] = {}
    for module in model.modules():
        for parameter, tensor in own_matrices(module):
            if (id(module), parameter) not in known and id(tensor) not in found:
                found[id(tensor)] = kind_of(module), getattr(module, parameter)
    return list(found.values())
