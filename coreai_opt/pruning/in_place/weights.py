"""In-place weights: the masked weights of a model, with masks and dense values beside them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import is_

import torch
from torch import Tensor

from coreai_opt.pruning._torch_internals import copy_all, parameters_of, version_of
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.in_place.changes import MaskChange
from coreai_opt.pruning.in_place.many import ManyMasks, as_integers
from coreai_opt.pruning.masks.masking import is_own_memory, take_kept
from coreai_opt.pruning.masks.together import stacked
from coreai_opt.pruning.model.targets import PrunedTensor


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
        self._places = {id(each.impl): place for place, each in enumerate(tensors)}
        self._slots = [(parameters_of(each.module), each.parameter) for each in tensors]
        self._versions: list[int] = [-1] * len(tensors)
        self._known: list[Tensor] = []
        self._kinds: list[tuple[torch.device, torch.dtype]] = []
        self._masks = ManyMasks([], [])
        self.refresh()

    @property
    def masks(self) -> list[Tensor]:
        """The masks, True = keep."""
        return [tensor.impl.mask for tensor in self.tensors]

    def now(self) -> list[Tensor]:
        """Return the parameters that the model has now."""
        return [parameters[name] for parameters, name in self._slots]

    def refresh(self) -> list[Tensor]:
        """Return the parameters that the model has now, with masks of their devices and dtypes."""
        weights = self.now()
        kinds = [(weight.device, weight.dtype) for weight in weights]
        if kinds != self._kinds:
            self._move_to(weights)
            self._kinds = kinds
        if not all(map(is_, weights, self._known)):
            # Another parameter may have the version of the one in whose place it is.
            self._versions = [-1] * len(weights)
        self._known = weights
        return weights

    def masks_changed(self) -> None:
        """Take note that masks have been given other values."""
        self._masks.changed(range(len(self.tensors)))
        self.note_active()

    def mask(self, places: Sequence[int] | None = None) -> None:
        """Set pruned elements to 0, in all weights or in those at some places."""
        weights = self.now()
        chosen = self.active if places is None else places
        self._masks.put_on_parameters(chosen, weights)
        for place in chosen:
            self._versions[place] = version_of(weights[place])

    def mask_written(self) -> None:
        """Mask the weights that somebody has written to since they were masked."""
        weights = self.refresh()
        written = [
            place for place in self.active if version_of(weights[place]) != self._versions[place]
        ]
        if written:
            self.mask(written)

    def mask_alike(self, places_and_values: Iterable[tuple[int, Tensor]]) -> None:
        """Set pruned elements to 0 in tensors of the weights' shapes on their devices."""
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

    def places_of(self, tensors: Iterable[PrunedTensor]) -> list[int]:
        """Return the places of tensors."""
        return [self._places[id(tensor.impl)] for tensor in tensors]

    @torch.no_grad()
    def all_dense(self, tensors: Sequence[PrunedTensor]) -> list[Tensor]:
        """Return the dense weights behind masks that are about to change.

        There is one, or several small ones of one shape, dtype and device. Where no dense values
        are kept, what is pruned is 0.
        """
        weights: list[Tensor] = [tensor.original for tensor in tensors]
        if not self.keeps_dense:
            return weights
        places = self.places_of(tensors)
        whole = self._joined(places, weights) if len(tensors) > 1 else None
        for row, (place, weight) in enumerate(zip(places, weights, strict=True)):
            dense = self.dense[place]
            if whole is not None:
                self.dense[place] = whole[row]
            elif dense is None:
                self.dense[place] = weight.detach().clone()
            else:
                take_kept(dense, self.tensors[place].impl.mask, weight.detach())
        return [dense for place in places if (dense := self.dense[place]) is not None]

    def _joined(self, places: Sequence[int], weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return kept weights, and the dense values of pruned ones, in rows of a tensor."""
        dense = [
            weight if (dense := self.dense[place]) is None else dense
            for place, weight in zip(places, weights, strict=True)
        ]
        kept, pruned = as_integers(stacked(weights)), as_integers(stacked(dense))
        factors = self._masks.together(places)
        # What is where it is pruned, and upon it what differs where it is kept.
        whole = torch.bitwise_xor(kept, pruned).mul_(factors).bitwise_xor_(pruned)
        first = weights[0]
        return whole.view(first.dtype).view(-1, *first.shape).unbind()

    @contextmanager
    def changing(
        self, tensors: Sequence[PrunedTensor], dense: Sequence[Tensor]
    ) -> Iterator[MaskChange]:
        """Mask weights by the masks that they have at the end, and give what comes back its value.

        ``dense`` is what ``all_dense`` has returned for these tensors.
        """
        change = MaskChange([tensor.impl.mask for tensor in tensors])
        yield change
        change.has_happened()
        places = self.places_of(tensors)
        weights = [tensor.original for tensor in tensors]
        if len(tensors) > 1:
            self._put_on_together(places, weights, dense, change)
        else:
            self._masks.changed(places)
            is_masked = version_of(weights[0]) == self._versions[places[0]]
            change.put_on(weights[0], self.dense[places[0]], is_masked)
        for place, weight in zip(places, weights, strict=True):
            self._versions[place] = version_of(weight)
            if self.tensors[place].impl.sparsity == 0:
                self.dense[place] = None

    @torch.no_grad()
    def _put_on_together(
        self,
        places: Sequence[int],
        weights: Sequence[Tensor],
        dense: Sequence[Tensor],
        change: MaskChange,
    ) -> None:
        factors = self._masks.together(places)
        factors.copy_(change.now.view(factors.shape))
        first = weights[0]
        whole = (as_integers(stacked(dense)) * factors).view(first.dtype)
        copy_all([each.data for each in weights], whole.view(-1, *first.shape).unbind())

    def note_active(self) -> None:
        """Take note of what has something pruned."""
        active = [place for place, each in enumerate(self.tensors) if each.impl.sparsity > 0]
        if active != self.active:  # a list that stays the same is known to others
            self.active = active

    def full(self, place: int) -> Tensor:
        """Return a weight with its dense values, a new tensor where something is pruned."""
        weight, dense = self.tensors[place].original.detach(), self.dense[place]
        return (
            weight if dense is None else torch.where(self.tensors[place].impl.mask, weight, dense)
        )

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
        self.note_active()
