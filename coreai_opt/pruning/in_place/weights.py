"""Weights masked in place; masks and the dense values of what is pruned lie beside them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.in_place.many import ManyMasks, is_own_memory
from coreai_opt.pruning.masking import put_back
from coreai_opt.pruning.targets import PrunedTensor

__all__ = ["MaskedWeights"]


class MaskedWeights:
    """The pruned weights of a model, and their dense values where they may come back.

    A weight is looked up by its module whenever it is needed: loading may put another parameter in
    its place, and a model may move to another device or dtype. Masks and dense values follow.

    Args:
        tensors: the weights and their masks.
        keeps_dense: whether the dense value of a pruned weight is kept.

    Attributes:
        tensors: as given.
        dense: by place, the dense values; what stands there for a kept weight means nothing.
        keeps_dense: as given.
        active: the places of those of which something is pruned.
    """

    def __init__(self, tensors: Sequence[PrunedTensor], keeps_dense: bool) -> None:
        self.tensors = tensors
        self.dense: list[Tensor | None] = [None] * len(tensors)
        self.keeps_dense = keeps_dense
        self.active: list[int] = []
        self._slots = [(each.module._parameters, each.parameter) for each in tensors]
        self._versions: list[int] = [-1] * len(tensors)
        self._kinds: list[tuple[torch.device, torch.dtype]] = []
        self._masks = ManyMasks([], [])
        self.follow()

    @property
    def masks(self) -> list[Tensor]:
        """The masks, True = keep."""
        return [tensor.impl.mask for tensor in self.tensors]

    def now(self) -> list[Tensor]:
        """Return the parameters that the model has now."""
        return [parameters[name] for parameters, name in self._slots]  # type: ignore[misc]

    def follow(self) -> list[Tensor]:
        """Return the parameters that the model has now, with masks of their devices and dtypes."""
        weights = self.now()
        kinds = [(weight.device, weight.dtype) for weight in weights]
        if kinds != self._kinds:
            self._move_to(weights)
            self._kinds = kinds
        return weights

    def masks_changed(self) -> None:
        """Take note that masks have been given other values."""
        self._masks.changed(range(len(self.tensors)))
        self._note_active()

    def mask(self, places: Iterable[int] | None = None) -> None:
        """Set what is pruned to 0, in all weights or in those at some places."""
        weights = self.now()
        chosen = self.active if places is None else list(places)
        self._masks.put_on([(place, weights[place]) for place in chosen])
        for place in chosen:
            self._versions[place] = weights[place]._version

    def mask_written(self) -> None:
        """Mask the weights that somebody has written to since they were masked."""
        weights = self.follow()
        written = [
            place for place in self.active if weights[place]._version != self._versions[place]
        ]
        if written:
            self.mask(written)

    def mask_alike(self, places_and_values: Iterable[tuple[int, Tensor]]) -> None:
        """Set to 0 what is pruned, in tensors of the weights' shapes on their devices."""
        self._masks.put_on(places_and_values)

    @torch.no_grad()
    def mask_gradients(self, places: Iterable[int]) -> None:
        """Mask the gradients that weights at some places have."""
        weights = self.now()
        gradients = []
        for place in places:
            weight = weights[place]
            gradient = weight.grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            if is_own_memory(gradient):
                gradients.append((place, gradient))
                continue
            # To be differentiated once more, or one number for many.
            with torch.set_grad_enabled(gradient.requires_grad):
                weight.grad = torch.where(self.tensors[place].impl.mask, gradient, 0)
        self._masks.put_on(gradients)

    @contextmanager
    def dense_inside(self, places: Sequence[int]) -> Iterator[None]:
        """Give weights their dense values, and mask them by the masks that they have at the end.

        Where no dense values are kept, what is pruned stays at 0.
        """
        weights = self.follow()
        for place in places:
            dense = self.dense[place]
            if dense is not None:
                put_back(weights[place].data, self.tensors[place].impl.mask, dense)
        try:
            yield
        finally:
            self._masks.changed(places)
            if self.keeps_dense:
                self._keep(weights, places)
            self.mask(places)
            self._note_active()

    def _keep(self, weights: Sequence[Tensor], places: Iterable[int]) -> None:
        for place in places:
            if self.tensors[place].impl.sparsity == 0:
                self.dense[place] = None
                continue
            dense = self.dense[place]
            if dense is None:
                self.dense[place] = weights[place].detach().clone()
            else:
                dense.copy_(weights[place].detach())

    def full(self, place: int) -> Tensor:
        """Return a weight with its dense values, a new tensor where something is pruned."""
        weight, dense = self.tensors[place].original.detach(), self.dense[place]
        return (
            weight if dense is None else torch.where(self.tensors[place].impl.mask, weight, dense)
        )

    def _note_active(self) -> None:
        self.active = [place for place, each in enumerate(self.tensors) if each.impl.sparsity > 0]

    def _make_mask(self, place: int, weight: Tensor) -> None:
        tensor = self.tensors[place]
        if tensor.impl.sparsity > 0:
            raise PruningError(
                f"the mask of {tensor.name!r} was made for a weight without memory, and its values "
                "are not known; allowed: prepare() when weights are there, or a schedule that "
                "begins later"
            )
        tensor.impl.to_empty(device=weight.device)
        tensor.impl.mask.fill_(True)
        self.dense[place] = None

    def _move_to(self, weights: Sequence[Tensor]) -> None:
        for place, (tensor, weight) in enumerate(zip(self.tensors, weights, strict=True)):
            if tensor.impl.mask.is_meta and not weight.is_meta:
                self._make_mask(place, weight)
            elif tensor.impl.mask.device != weight.device:
                tensor.impl.to(weight.device)
            dense = self.dense[place]
            if dense is not None:
                self.dense[place] = dense.to(weight.device, weight.dtype)
        self._masks = ManyMasks(self.masks, [weight.dtype for weight in weights])
        self._note_active()
