"""Mask parametrization of one tensor; criteria are subclasses of it."""

import weakref
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import unserializable_hook

from coreai_opt.pruning._registry import Registry
from coreai_opt.pruning._torch_internals import in_function_transform, metadata_of
from coreai_opt.pruning.masks import of_scores as masks
from coreai_opt.pruning.masks.masking import mask_in_place, masked_gradient, masked_weight
from coreai_opt.pruning.masks.selection import Scores, count_regrown
from coreai_opt.pruning.spec.clock import ScheduleClock
from coreai_opt.pruning.spec.mask_state import (
    EXTRA_STATE,
    MASK,
    METADATA,
    STEP_COUNT,
    ScheduleState,
    mask_of,
    share_of,
    step_of,
)
from coreai_opt.pruning.spec.schemes import PruningScheme, Unstructured

if TYPE_CHECKING:
    from coreai_opt.pruning.scheduling.derived_sparsity import DerivedSparsity
    from coreai_opt.pruning.spec.spec import PruningSpec


def as_bits(numbers: Sequence[float]) -> Tensor:
    """Return numbers as a tensor of integers, which no conversion of a model rounds."""
    # A tensor, because people map state dicts with v.cpu(); of integers, because they map them with
    # v.half() if v.is_floating_point().
    return torch.tensor(numbers, dtype=torch.float64).view(torch.int64)


def from_bits(state: Tensor) -> list[float]:
    """Return the numbers that ``as_bits`` was given."""
    return list(state.cpu().view(torch.float64).tolist())


class _Hooked(NamedTuple):
    """A dense weight, held weakly, and the handles of its hooks."""

    weight: "weakref.ref[Tensor]"
    handles: list[Any]


class PruneImplBase(nn.Module, Registry):
    """A parametrization that multiplies a weight with a mask, and the criterion behind the mask.

    A criterion of your own overrides ``score`` and registers itself:

    Example:
        >>> from coreai_opt.pruning.spec import PruneImplBase, PruningSpec
        >>> @PruneImplBase.register("smallest_square")
        ... class SquarePruneImpl(PruneImplBase):
        ...     def score(self, weight):
        ...         return weight.square()
        >>> PruningSpec(pruning_algo="smallest_square").pruning_algo.__name__
        'SquarePruneImpl'

    Args:
        weight: the dense weight; shape and device of the mask are taken from it.
        spec: what is asked for this tensor.
        clock: the step counter of the model's schedules.

    Attributes:
        mask: bool buffer of the weight's shape, True = keep.
        spec: the ``PruningSpec``.
        target_sparsity: the sparsity that this tensor is to arrive at, in [0, 1]: that of the spec,
            unless the scheme fixes its own or an allocation gives it another.
        scheduled: the sparsity that the schedule has asked for, in [0, 1]; with an allocation other
            than uniform it is that of several tensors together.
        allow_regrowth: whether a pruned weight may come back. Where it may not, its dense value is
            set to 0, and no masked copy of the weight is needed.
        in_place: whether the mask lies beside the model, so that gradients of what is pruned are
            real ones.
        floor: the sparsity, in [0, 1], of the zeros that were taken as the first mask; no later
            mask goes below it, and those zeros never come back. None = none were taken.
    """

    mask: Tensor
    floor: float | None = None

    def __init__(
        self, weight: Tensor, spec: "PruningSpec", clock: ScheduleClock | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.clock = clock if clock is not None else ScheduleClock()
        self.target_sparsity = spec.pruning_scheme.target_for(spec.target_sparsity)
        self.scheduled = 0.0
        self.allow_regrowth = True
        self.in_place = False
        self._sparsity = 0.0
        self._regrown: int | Tensor = 0
        self._hooked: list[_Hooked] = []
        self._derived: tuple[DerivedSparsity, int] | None = None
        with torch.inference_mode(False):  # a mask made in it could never be trained under
            self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    @property
    def sparsity(self) -> float:
        """The sparsity that the mask was last computed for, in [0, 1]; 0 before the first."""
        return self._sparsity

    @property
    def step_count(self) -> int:
        """Steps finished on the clock that all masks of a model share."""
        return self.clock.step_count

    @property
    def regrown(self) -> int:
        """How many pruned weights have come back since pruning began; waits for the device."""
        counted = isinstance(self._regrown, int) or not self._regrown.is_meta
        return int(self._regrown) if counted else 0

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its pruned elements at 0; their gradients are 0 too."""
        if _is_dense(weight):
            self.hook_gradients(weight)
            if not self.allow_regrowth:
                mask_in_place(weight, self.mask)
                return weight
            return masked_weight(weight, self.mask)
        return torch.where(self.mask, weight, 0)

    def hook_gradients(self, weight: Tensor) -> None:
        """Put the hooks of this criterion on a dense weight, unless they are there.

        Each forward pass calls this, because the weight may be replaced (assigned from a state
        dict, copied). A weight from before keeps its hooks: its backward pass may be yet to come.
        """
        if any(each.weight() is weight for each in self._hooked) or not weight.requires_grad:
            return
        self._hooked = [each for each in self._hooked if each.weight() is not None]
        register: Any = weight.register_hook
        handles = [register(hook) for hook in self.hooks(weight)]
        self._hooked.append(_Hooked(weakref.ref(weight), handles))

    def hooks(self, weight: Tensor) -> list[Callable[[Tensor], Any]]:
        """Return the hooks that see each gradient of a dense weight, in their order.

        Where weights may come back, the forward pass masks the gradient on its way.
        """
        return [] if self.allow_regrowth else [_masking_hook(self)]

    def release_gradients(self) -> None:
        """Remove the hooks from the dense weights."""
        while self._hooked:
            for handle in self._hooked.pop().handles:
                handle.remove()

    def score(self, weight: Tensor) -> Tensor:
        """Return how much each element is worth: the weight's shape, higher = keep."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither score nor compute_mask")

    @staticmethod
    def compute_mask(weight: Tensor, sparsity: float, pruning_scheme: PruningScheme) -> Tensor:
        """Return the mask of a weight, 1/True = keep; for criteria that need only the weight."""
        raise NotImplementedError("this criterion has no compute_mask of its own; see score")

    @torch.no_grad()
    def update(self, weight: Tensor, sparsity: float) -> None:
        """Recompute the mask in place from the dense weight, at a new sparsity in [0, 1]."""
        if self.has_score():
            mask = masks.compute_mask(self.ranking(weight), sparsity, self.spec.pruning_scheme)
        else:
            mask = self.compute_mask(weight.detach(), sparsity, self.spec.pruning_scheme).bool()
        if self.floor:
            mask &= self.open_to_regrowth(weight)
        self.replace_mask(mask, sparsity)

    def replace_mask(self, mask: Tensor, sparsity: float) -> None:
        """Put a mask in force, in place, as the one that belongs to a sparsity in [0, 1]."""
        if not self.allow_regrowth:
            mask = mask & self.mask
        self.took_mask(sparsity, count_regrown(self.mask, mask))
        self.mask.copy_(mask)

    def took_mask(self, sparsity: float, regrown: int | Tensor) -> None:
        """Take note of a mask in force for a sparsity in [0, 1], and of how many came back."""
        before = self._regrown
        if isinstance(regrown, Tensor) and isinstance(before, Tensor):
            before = before.to(regrown.device)
        # Where nothing may come back, less sparsity changes nothing.
        force = sparsity if self.allow_regrowth else max(sparsity, self._sparsity)
        # Not by assignment, which takes longer than a small mask.
        vars(self).update(_regrown=regrown + before, _sparsity=force, scheduled=sparsity)

    def restore(self, sparsity: float, scheduled: float, regrown: int) -> None:
        """Take what a state says of the mask that was loaded; sparsities in [0, 1]."""
        self._sparsity, self.scheduled, self._regrown = sparsity, scheduled, regrown

    def see_gradient(self, weight: Tensor, gradient: Tensor) -> None:
        """Look at a dense weight and the gradient of a step, not masked yet; only in place."""

    @classmethod
    def sees_gradients(cls) -> bool:
        """Return whether this criterion overrides ``see_gradient``."""
        return cls.see_gradient is not PruneImplBase.see_gradient

    def ranking(self, weight: Tensor) -> Scores:
        """Return the scores that masks are made of; ``Magnitude`` spares the tensor of them."""
        return self.scores(weight)

    @torch.no_grad()
    def scores(self, weight: Tensor) -> Tensor:
        """Return the scores that masks are made of: those of ``score``, and where weights must not
        come back the lowest of all for the ones that are pruned."""
        scores = self.score(weight.detach())
        if self.allow_regrowth and not self.floor:
            return scores
        scores = scores if scores.is_floating_point() else scores.float()
        # A whole slice or block is not to go because of a zero in it that was there before.
        lowest = scores.amin() if self.has_stray_zeros() else -torch.inf
        return torch.where(self.open_to_regrowth(weight), scores, lowest)

    def open_to_regrowth(self, weight: Tensor) -> Tensor:
        """Return a bool tensor that is False for what is pruned and must never come back.

        Args:
            weight: the dense weight; of the zeros that it began with the dense value is 0.
        """
        return self.mask | (weight.detach() != 0) if self.allow_regrowth else self.mask

    def has_stray_zeros(self) -> bool:
        """Return whether single zeros may have been there that the scheme does not prune singly."""
        return bool(self.floor) and type(self.spec.pruning_scheme) is not Unstructured

    def __getstate__(self) -> dict[str, Any]:
        # A copy has a dense weight of its own, which it has yet to see.
        return {**self.__dict__, "_hooked": []}

    def set_derived_sparsity(self, derived: "DerivedSparsity", place: int) -> None:
        """Take what the schedule of several tensors asks for; this is the one at a place."""
        self._derived = derived, place

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        step = self.clock.step_count
        destination[prefix + STEP_COUNT] = torch.tensor(step, dtype=torch.int64)
        metadata = metadata_of(destination).get(prefix[:-1])
        if metadata is not None:
            saved = ScheduleState(step, self._sparsity, self.scheduled, self.regrown)
            metadata[METADATA] = saved._asdict()

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        state = dict(state_dict)
        if prefix + STEP_COUNT not in state and prefix + EXTRA_STATE not in state:
            missing_keys.append(prefix + STEP_COUNT)
        try:
            saved = self._take_step(state, prefix, local_metadata, error_msgs)
            if prefix + MASK in state:
                state[prefix + MASK] = mask_of(state[prefix + MASK])
        except ValueError as error:
            error_msgs.append(f"{prefix}{error}")
            return
        super()._load_from_state_dict(
            state, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if saved is not None:
            self.restore(*saved[1:])
        elif prefix + MASK in state:
            self.restore(*self.sparsity_at_step(), 0)

    def _take_step(
        self, state: dict[str, Any], prefix: str, metadata: Any, errors: list[str]
    ) -> ScheduleState | None:
        """Take the step out of a state dict; return what it says besides, None for nothing."""
        step_key, former_key = prefix + STEP_COUNT, prefix + EXTRA_STATE
        if step_key in state:
            step = step_of(state.pop(step_key))
            saved = ScheduleState.read(metadata, step)
        elif former_key in state:
            saved = ScheduleState.former(from_bits(state[former_key]))
            step = saved.step_count
            if type(self).set_extra_state is nn.Module.set_extra_state:
                del state[former_key]
        else:
            return None
        is_static = self._derived is not None and self._derived[0].schedule is None
        self.clock.load(step, step_key, is_static, errors)
        return saved

    def sparsity_at_step(self) -> tuple[float, float]:
        """Return the sparsity of the mask, and that of its schedule, where only the step is known.

        A mask with other zeros than the schedule asks for at the clock's step is not of this
        schedule: it stands where it stands.
        """
        zeros = 0 if self.mask.is_meta else self.mask.numel() - int(self.mask.sum())
        if self._derived is None:
            return (share_of(zeros, self.mask.numel()),) * 2
        derived, place = self._derived
        scheduled = derived.scheduled(self.clock.step_count)
        share = derived.share(place, self.clock.step_count)
        # One threshold for several tensors, or a criterion of somebody's own, counts otherwise.
        counts = self.has_score() and derived.allocation != "global" and not self.mask.is_meta
        scheme = self.spec.pruning_scheme
        if counts and zeros != scheme.pruned_elements(tuple(self.mask.shape), share):
            return (share_of(zeros, self.mask.numel()),) * 2
        return share, scheduled

    def extra_repr(self) -> str:
        return f"sparsity={self._sparsity:g}, target_sparsity={self.target_sparsity:g}"

    @classmethod
    def has_score(cls) -> bool:
        """Return whether masks come from ``score``; a class may override ``compute_mask`` alone."""
        kind: Any = cls  # a module's class is no Hashable to mypy
        return _has_score(kind)


@cache  # asked for every layer at every update
def _has_score(kind: Any) -> bool:
    # A subclass may override either; the nearest one counts, score where both stand.
    nearest = next(
        known for known in kind.__mro__ if {"score", "compute_mask"} & vars(known).keys()
    )
    return "score" in vars(nearest)


def _masking_hook(impl: PruneImplBase) -> Callable[[Tensor], Tensor]:
    """Return a hook that masks the gradient of a dense weight; the weight keeps no mask alive."""
    owner = weakref.ref(impl)

    @unserializable_hook  # type: ignore[untyped-decorator]
    def hook(gradient: Tensor) -> Tensor:
        there = owner()
        return gradient if there is None else masked_gradient(gradient, there.mask)

    return cast(Callable[[Tensor], Tensor], hook)


def _is_dense(weight: Tensor) -> bool:
    """Return whether this is the weight that an optimizer moves, in a pass that runs now.

    It is not where torch follows the pass to make a graph of it, or takes it apart otherwise.
    """
    return (
        type(weight) is nn.Parameter
        and weight.layout is torch.strided
        and not weight.is_meta
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not in_function_transform()
    )
