"""Optimizer guard of MagnitudePruner: no optimizer moves a pruned weight."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import (
    LBFGS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from coreai_opt.pruning._torch_internals import version_of
from coreai_opt.pruning.masks.masking import is_own_memory, mask_in_place, put_back
from coreai_opt.pruning.model.targets import PrunedTensor
from coreai_opt.pruning.scheduling.groups import Changing

# These evaluate their closure before they move anything, and move each element by its own gradient
# and moments alone: where those are 0, by its weight decay. A subclass may do anything.
ELEMENTWISE = (SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, RAdam, RMSprop)


@dataclass(frozen=True)
class _Guarded:
    """A weight that an optimizer may move where it is pruned, and what it was before.

    ``before`` None = it is 0 where it is pruned.
    """

    tensor: PrunedTensor
    weight: Tensor
    before: Tensor | None
    has_moments: bool


class OptimizerMasking:
    """While a weight is pruned, no optimizer moves it; when it comes back, nothing pushes it.

    The dense value of a pruned weight is kept as it was when it was pruned: neither momentum nor
    weight decay reach it. Moments of the optimizer are zero for a weight that is pruned, and for
    one that has just come back.

    Any optimizer that keeps its state in tensors of the weight's shape is served, and any of torch:
    the history of ``LBFGS`` is dropped when a mask changes. Those of torch
    that work element by element leave a weight alone whose gradient and moments are 0, unless it
    decays: then, and under any other optimizer, a copy of the pruned weights is held during the
    step. What is added to a gradient after the backward pass is taken out again, unless it is added
    to ``gradient.data``, of which nobody is told.
    """

    def __init__(self, tensors: Sequence[PrunedTensor]) -> None:
        self._tensors = tensors
        self._optimizers: list[Optimizer] = []
        self._guarded: list[list[_Guarded]] = []
        self._handles: list[Any] = []
        # By optimizer and weight: the mask, and the version of it, that its moments are 0 under.
        self._cleared: dict[tuple[int, int], tuple[Tensor, int]] = {}

    def attach(self, optimizer: Optimizer) -> None:
        """Look after an optimizer; one that holds none of the tensors is left alone."""
        tensors = self._by_weight()
        if optimizer in self._optimizers or not any(
            id(weight) in tensors for weight in _weights(optimizer)
        ):
            return
        self._optimizers.append(optimizer)
        self._handles.append(optimizer.register_step_pre_hook(self._before_step))
        self._handles.append(optimizer.register_step_post_hook(self._after_step))
        loaded = optimizer.register_load_state_dict_post_hook
        self._handles.append(loaded(lambda _: self.clear_moments(self._tensors)))
        # It may have been at work before the weights were pruned.
        self.clear_moments(self._tensors)

    def detach(self) -> None:
        """Leave the optimizers as they were found."""
        while self._handles:
            self._handles.pop().remove()
        self._optimizers.clear()
        self._guarded.clear()
        self._cleared.clear()

    def mask_changes(self) -> Changing:
        """Return a context for tensors and their weights while their masks change.

        The moments of what is pruned by then are zero, and those of what has just come back.
        """
        owners: dict[int, list[Optimizer]] = {}
        for optimizer in self._optimizers:
            for weight in _weights(optimizer):
                owners.setdefault(id(weight), []).append(optimizer)

        @contextmanager
        def changing(tensors: Sequence[PrunedTensor], weights: Sequence[Tensor]) -> Iterator[None]:
            before = [tensor.impl.mask.clone() for tensor in tensors]
            yield
            for tensor, weight, both in zip(tensors, weights, before, strict=True):
                both &= tensor.impl.mask
                for optimizer in owners.get(id(weight), []):
                    if isinstance(optimizer, LBFGS):
                        optimizer.state.clear()  # it is of all weights, under the old masks
                    self._clear(optimizer, weight, tensor.impl.mask, both)

        return changing

    def clear_moments(self, tensors: Sequence[PrunedTensor]) -> None:
        """Set the moments of the weights that are pruned now to zero."""
        masks = {id(each.original): each.impl.mask for each in tensors if each.is_masked}
        for optimizer in self._optimizers:
            for weight in _weights(optimizer):
                if id(weight) in masks:
                    self._clear(optimizer, weight, masks[id(weight)], masks[id(weight)])

    def __getstate__(self) -> dict[str, Any]:
        # A copied optimizer comes without hooks: it is to be handed over again.
        anew: dict[str, Any] = {"_optimizers": [], "_guarded": [], "_handles": [], "_cleared": {}}
        return {**self.__dict__, **anew}

    def _by_weight(self) -> dict[int, PrunedTensor]:
        # Looked up each time: loading a state dict may put other parameters in their place.
        # A tensor whose mask was folded in is no longer pruned.
        there = [tensor for tensor in self._tensors if tensor.is_masked]
        return {id(tensor.original): tensor for tensor in there}

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        guarded: list[_Guarded] = []
        # A stack: the step of a subclass calls that of its base, and each calls the hooks.
        self._guarded.append(guarded)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if type(optimizer) not in ELEMENTWISE or closure is None:
            guarded += self._guard(optimizer)
            return None

        # The gradients come with the closure, and masked copies of the weights have gone by then.
        def closure_and_guard() -> Any:
            result = closure()
            guarded.extend(self._guard(optimizer))
            return result

        if len(args) > 1:
            return (args[0], closure_and_guard, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_and_guard}

    def _guard(self, optimizer: Optimizer) -> Iterator[_Guarded]:
        """Mask the gradients, and yield what may be moved all the same."""
        tensors = self._by_weight()
        for group in optimizer.param_groups:
            for weight in group["params"]:
                tensor = tensors.get(id(weight))
                # Before the first mask there is nothing to protect.
                if tensor is None or tensor.impl.sparsity == 0:
                    continue
                # A penalty in the loss may read the dense weight, or somebody add noise.
                _mask_gradient(weight, tensor.impl.mask)
                self._ensure_cleared(optimizer, weight, tensor.impl.mask)
                yield from _guard_one(optimizer, group, weight, tensor)

    def _clear(self, optimizer: Optimizer, weight: Tensor, mask: Tensor, both: Tensor) -> None:
        _clear(optimizer, weight, both)
        self._cleared[id(optimizer), id(weight)] = (mask, version_of(mask))

    def _ensure_cleared(self, optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
        # A state dict brings masks under which the moments here have not been cleared.
        known, version = self._cleared.get((id(optimizer), id(weight)), (None, 0))
        if known is not mask or version != version_of(mask):
            self._clear(optimizer, weight, mask, mask)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for each in self._guarded.pop():
            mask = each.tensor.impl.mask
            if each.before is None:
                mask_in_place(each.weight, mask)
            else:
                put_back(each.weight, mask, each.before)
            if each.has_moments:
                _clear(optimizer, each.weight, mask)


def _guard_one(
    optimizer: Optimizer, group: dict[str, Any], weight: Tensor, tensor: PrunedTensor
) -> Iterator[_Guarded]:
    impl = tensor.impl
    by_element = is_elementwise(optimizer, group, weight)
    decays = group.get("weight_decay", 0) != 0
    if by_element and not (decays and impl.allow_regrowth):
        return
    before = weight.detach().clone() if impl.allow_regrowth else None
    # What is added to the gradient, as weight decay in SGD, goes into the moments.
    decoupled = type(optimizer) is AdamW or group.get("decoupled_weight_decay", False)
    yield _Guarded(tensor, weight, before, has_moments=not (by_element and decoupled))


def _mask_gradient(weight: Tensor, mask: Tensor) -> None:
    gradient = weight.grad
    if gradient is None or gradient.layout is not torch.strided:
        return
    if is_own_memory(gradient):
        mask_in_place(gradient, mask)
    else:
        weight.grad = torch.where(mask, gradient, 0)


def is_elementwise(optimizer: Optimizer, group: dict[str, Any], weight: Tensor) -> bool:
    if type(optimizer) not in ELEMENTWISE:
        return False  # its settings may mean anything: the eps of Adafactor is a pair
    # With an epsilon of 0, which it may round to, 0 would be divided by 0.
    numbers = torch.finfo(weight.dtype)
    least = numbers.smallest_normal * numbers.eps
    # Capturable ones divide by a learning rate on the device, which a warm-up may begin at 0.
    divides_by_rate = group.get("capturable", False)
    return not divides_by_rate and bool(group.get("eps", 1.0) >= least)


def _clear(optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
    for moment in optimizer.state.get(weight, {}).values():
        if isinstance(moment, Tensor) and moment.shape == mask.shape:
            mask_in_place(moment, mask.to(moment.device))


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
