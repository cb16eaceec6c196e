"""Keeping an optimizer's hands off pruned weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from coreai_opt.pruning.targets import PrunedTensor

__all__ = ["OptimizerMasking"]


class OptimizerMasking:
    """While a weight is pruned, no optimizer moves it; when it comes back, nothing pushes it.

    The dense value of a pruned weight is kept as it was when it was pruned: neither momentum nor
    weight decay reach it. Moments of the optimizer are zero for a weight that is pruned, and for
    one that has just come back.

    Any optimizer that keeps its state in tensors of the weight's shape is served. A copy of the
    pruned weights is held during its step.

    Args:
        tensors: the pruned tensors.
    """

    def __init__(self, tensors: Sequence[PrunedTensor]) -> None:
        self._tensors = tensors
        self._optimizers: list[Optimizer] = []
        self._saved: list[list[tuple[PrunedTensor, Tensor]]] = []
        self._handles: list[Any] = []

    def attach(self, optimizer: Optimizer) -> None:
        """Look after an optimizer; one that holds none of the tensors is left alone."""
        tensors = self._by_weight()
        if optimizer in self._optimizers or not any(
            id(weight) in tensors for weight in _weights(optimizer)
        ):
            return
        self._optimizers.append(optimizer)
        self._handles.append(optimizer.register_step_pre_hook(self._save))
        self._handles.append(optimizer.register_step_post_hook(self._restore))
        loaded = optimizer.register_load_state_dict_post_hook
        self._handles.append(loaded(lambda _: self.clear_moments(self._tensors)))
        # It may have been at work before the weights were pruned.
        self.clear_moments(self._tensors)

    def detach(self) -> None:
        """Leave the optimizers as they were found."""
        while self._handles:
            self._handles.pop().remove()
        self._optimizers.clear()
        self._saved.clear()

    @torch.no_grad()
    def clear_moments(self, tensors: Sequence[PrunedTensor]) -> None:
        """Set the moments of the weights that are pruned now to zero."""
        masks = {id(each.original): each.impl.mask for each in tensors if each.is_masked}
        for optimizer in self._optimizers:
            for weight in _weights(optimizer):
                if id(weight) in masks:
                    _clear(optimizer, weight, masks[id(weight)])

    def __getstate__(self) -> dict[str, Any]:
        # A copied optimizer comes without hooks: it is to be handed over again.
        return {**self.__dict__, "_optimizers": [], "_saved": [], "_handles": []}

    def _by_weight(self) -> dict[int, PrunedTensor]:
        # Looked up each time: loading a state dict may put other parameters in their place.
        # A tensor whose mask was folded in is no longer pruned.
        there = [tensor for tensor in self._tensors if tensor.is_masked]
        return {id(tensor.original): tensor for tensor in there}

    def _save(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        saved, tensors = [], self._by_weight()
        for weight in _weights(optimizer):
            tensor = tensors.get(id(weight))
            # Before the first mask there is nothing to protect. The gradient of a pruned weight is
            # not always zero: a penalty in the loss may read the dense weight.
            if tensor is not None and tensor.impl.sparsity > 0:
                saved.append((tensor, weight.detach().clone()))
        # A stack: the step of a subclass calls that of its base, and each calls the hooks.
        self._saved.append(saved)

    @torch.no_grad()
    def _restore(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for tensor, before in self._saved.pop():
            weight = tensor.original
            torch.where(tensor.impl.mask, weight, before, out=before)
            weight.copy_(before)
            # What is added to the gradient, as weight decay in SGD, has gone into them.
            _clear(optimizer, weight, tensor.impl.mask)


def _clear(optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
    for moment in optimizer.state.get(weight, {}).values():
        if isinstance(moment, Tensor) and moment.shape == mask.shape:
            moment.masked_fill_(~mask.to(moment.device), 0)


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
