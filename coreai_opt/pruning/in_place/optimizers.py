"""Optimizer hooks of in-place pruning: masked gradients before a step, masked weights after it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from coreai_opt.pruning._torch_internals import has_step_hooks, run_first
from coreai_opt.pruning.in_place.changes import MaskChange
from coreai_opt.pruning.in_place.many import ManyMasks
from coreai_opt.pruning.in_place.weights import MaskedWeights
from coreai_opt.pruning.saving.optimizer_state import ELEMENTWISE, is_elementwise


@dataclass
class _Places:
    """Where the weights of an optimizer are among those that are pruned."""

    held: list[Tensor]  # by the optimizer
    weights: list[Tensor]
    places: list[int]
    active: list[int]  # those of which something is pruned
    all_active: list[int]  # of all optimizers, that active was made for


class AttachedOptimizers:
    """Masks gradients before a step, and weights after it; moments of what is pruned are 0.

    Any optimizer is served: one that moves each element by its own gradient and moments leaves a
    pruned weight at 0, and what another has moved (``Muon``) is set back before its ``step``
    returns. A closure that is evaluated several times in a step (``LBFGS``, SAM) meets masked
    weights and gives masked gradients each time. The history of ``LBFGS`` is dropped when a mask
    changes. One that hands its work to another (Fabric's and Lightning's wrappers, SAM, Lookahead)
    is served with that one.

    Args:
        weights: the pruned weights.
        mask_gradients: called with the places of weights whose gradients are to be masked.
    """

    def __init__(
        self, weights: MaskedWeights, mask_gradients: Callable[[Optimizer, Sequence[int]], None]
    ) -> None:
        self._weights = weights
        self._mask_gradients = mask_gradients
        self.attached: list[Optimizer] = []
        self._handles: list[Any] = []
        self._are_clean = False  # whether the moments of what is pruned are known to be 0
        self._places: dict[int, _Places] = {}

    def attach(self, optimizer: Optimizer) -> list[Optimizer]:
        """Look after an optimizer, and after those that it hands its work to; return them all.

        One that holds none of the weights may be given some later; what is no optimizer is a
        TypeError.
        """
        found = list(with_inner(optimizer))
        if not found:
            raise TypeError(
                f"{type(optimizer).__name__} cannot be attached; allowed: an optimizer of torch, "
                "a subclass, or what holds one"
            )
        for one in found:
            if any(one is known for known in self.attached):
                continue
            self.attached.append(one)
            # Whoever looks at the weights after the step is to find them masked.
            after = run_first(one.register_step_post_hook(self._after_step))
            before = one.register_step_pre_hook(self._before_step)
            loaded = one.register_load_state_dict_post_hook(self._loaded)
            self._handles += [before, after, loaded]
            # It may have been at work before the weights were pruned.
            self._are_clean = False
        return found

    def detach(self) -> None:
        """Leave the optimizers as they were found."""
        while self._handles:
            self._handles.pop().remove()
        self.attached.clear()
        self._places.clear()

    def places_of(self, optimizer: Optimizer) -> list[int]:
        """Return the places of the weights that an optimizer holds."""
        return self._known(optimizer).places

    def _known(self, optimizer: Optimizer) -> _Places:
        # Groups of parameters may be added, and parameters be replaced.
        weights = self._weights.now()
        held = [weight for group in optimizer.param_groups for weight in group["params"]]
        known = self._places.get(id(optimizer))
        is_known = known is not None and _are_same(known.held, held)
        if known is None or not is_known or not _are_same(known.weights, weights):
            places = {id(weight): place for place, weight in enumerate(weights)}
            found = [places[key] for key in map(id, held) if key in places]
            known = self._places[id(optimizer)] = _Places(held, weights, found, [], [])
        if known.all_active is not self._weights.active:
            known.all_active = self._weights.active
            active = set(known.all_active)
            known.active = [place for place in known.places if place in active]
        return known

    def clear_moments(self, places: Iterable[int], kept: Sequence[Tensor]) -> None:
        """Set moments to 0 where weights at some places are not kept, by a bool tensor for each."""
        order = list(places)
        weights = self._weights.now()
        masks = ManyMasks(kept, [weights[place].dtype for place in order])
        self._for_moments(order, masks.put_on)

    def change_moments(self, places: Sequence[int], change: MaskChange) -> None:
        """Set moments to 0 where weights at some places were just pruned, or have come back."""
        if not self._are_clean and self.attached:
            self._clean()
        self._for_moments(places, change.clear)

    def _for_moments(
        self, places: Sequence[int], clear: Callable[[Iterable[tuple[int, Tensor]]], None]
    ) -> None:
        for optimizer in self.attached:
            known = self._known(optimizer)
            held = set(known.places)
            indices = [index for index, place in enumerate(places) if place in held]
            if indices and isinstance(optimizer, LBFGS):
                optimizer.state.clear()  # its history is of all weights, under the old masks
            clear(
                (index, moment)
                for index in indices
                for moment in _moments(optimizer, known.weights[places[index]])
            )

    def forget_moments(self) -> None:
        """Take note that masks were loaded, under which the moments have not been cleared."""
        self._are_clean = False

    def _clean(self) -> None:
        if not self._are_clean:
            places = self._weights.active
            self.clear_moments(places, [self._weights.masks[place] for place in places])
            self._are_clean = True

    def _loaded(self, optimizer: Optimizer) -> None:
        self._are_clean = False

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._weights.refresh()
        self._clean()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._mask_gradients(optimizer, self.active_of(optimizer))
            return None

        # The gradients come with the closure. What moves weights before it calls one may do so in
        # ways that their versions do not tell.
        mask = self._weights.mask_written if _waits(optimizer) else self._weights.mask

        def masked_closure() -> Any:
            mask()
            result = closure()
            self._mask_gradients(optimizer, self.active_of(optimizer))
            return result

        if len(args) > 1:
            return (args[0], masked_closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": masked_closure}

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        places = self.active_of(optimizer)
        self._weights.mask(places)
        mixing = set(_mixed(optimizer))
        if mixing:
            weights, masks = self._weights.now(), self._weights.masks
            moved = [place for place in places if id(weights[place]) in mixing]
            self._weights.mask_alike(
                (place, moment)
                for place in moved
                for moment in _moments(optimizer, weights[place])
                if moment.device == masks[place].device
            )

    def active_of(self, optimizer: Optimizer) -> list[int]:
        """Return the places of an optimizer's weights of which something is pruned."""
        return self._known(optimizer).active


def with_inner(optimizer: Any) -> Iterator[Optimizer]:
    """Yield an optimizer, if it calls hooks in its step, behind those that it hands its work to."""
    for held in getattr(optimizer, "__dict__", {}).values():
        if isinstance(held, Optimizer) and held is not optimizer:
            yield from with_inner(held)
    if has_step_hooks(optimizer):
        yield optimizer


def is_skipped(optimizer: Optimizer) -> bool:
    """Return whether a step that begins, or has ended, changes nothing.

    Fused optimizers are called under a gradient scaler even when they are to skip, and find that
    out on the device by this tensor. Reading it is the one copy to the host in a step; only fused
    optimizers under a scaler (16-mixed) have it.
    """
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


def _are_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    return len(ours) == len(theirs) and all(map(is_, ours, theirs))


def _waits(optimizer: Optimizer) -> bool:
    """Return whether an optimizer moves nothing before it has called its closure, once."""
    return type(optimizer) in ELEMENTWISE


def _moments(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    """Return what an optimizer keeps for a weight in tensors of its shape."""
    kept = optimizer.state.get(weight)
    if not kept:
        return []
    return [
        moment
        for moment in kept.values()
        if isinstance(moment, Tensor) and moment.shape == weight.shape and moment.dim()
    ]


def _mixed(optimizer: Optimizer) -> Iterable[int]:
    """Yield the ids of weights whose moments may leave 0 where gradient and moments are 0."""
    for group in optimizer.param_groups:
        weights = group["params"]
        dtypes = {weight.dtype: weight for weight in weights}
        mixed = {
            dtype
            for dtype, weight in dtypes.items()
            if not is_elementwise(optimizer, group, weight)
        }
        if mixed:
            yield from (id(weight) for weight in weights if weight.dtype in mixed)
