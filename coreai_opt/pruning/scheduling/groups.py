"""Mask groups: tensors that share a schedule and a target."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor, nn

from coreai_opt.pruning.config.asking import Asking, asking_of
from coreai_opt.pruning.config.pruner import Allocation, MagnitudePrunerConfig
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import AllocationError, NoGradientError, PruningError
from coreai_opt.pruning.masks.of_scores import global_masks
from coreai_opt.pruning.masks.selection import Scores
from coreai_opt.pruning.masks.together import batches, update_together
from coreai_opt.pruning.model.targets import PrunedTensor, Target, find_targets
from coreai_opt.pruning.scheduling.allocation import allocate
from coreai_opt.pruning.scheduling.derived_sparsity import DerivedSparsity
from coreai_opt.pruning.spec.mask_state import share_of
from coreai_opt.pruning.spec.schemes import NMStructured, Unstructured, prune_count

Changing = Callable[[Sequence[PrunedTensor], Sequence[Tensor]], AbstractContextManager[None]]
Dense = Callable[[Sequence[PrunedTensor]], Sequence[Tensor]]

NOTHING = nullcontext()


def nothing(
    tensors: Sequence[PrunedTensor], weights: Sequence[Tensor]
) -> AbstractContextManager[None]:
    """Do nothing around the change of masks."""
    return NOTHING


def originals(tensors: Sequence[PrunedTensor]) -> Sequence[Tensor]:
    """Return the weights that the optimizer moves, which are dense ones."""
    return [tensor.original for tensor in tensors]


@dataclass
class MaskGroup:
    """Tensors under one schedule with one target; ``schedule`` None = pruned once."""

    schedule: SparsitySchedule | None
    target_sparsity: float
    allocation: Allocation
    tensors: list[PrunedTensor] = field(default_factory=list)
    settled: bool = False
    asking: Asking = field(init=False)
    _floors: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.asking = Asking() if self.schedule is None else asking_of(self.schedule)

    def set_targets(self) -> None:
        """Tell each tensor at which sparsity it is to arrive.

        One that began with zeros never has fewer, and without a schedule it has arrived with them.
        """
        self._floors = self._floors_now()
        for tensor, share in zip(self.tensors, self._shares(self.target_sparsity), strict=True):
            stands = self.schedule is None and tensor.impl.floor is not None
            tensor.impl.target_sparsity = tensor.impl.sparsity if stands else share

    def begin_at_floors(self) -> None:
        """Take the masks that are there, of zeros, as those of one sparsity where they share it."""
        if self.allocation == "global" and self._floors:
            for tensor, share in zip(self.tensors, self._floors, strict=True):
                tensor.impl.restore(share, tensor.impl.scheduled, 0)
        self.set_targets()

    def set_derived_sparsity(self) -> None:
        """Tell each tensor what its schedule asks for at a step."""
        shapes = tuple(tensor.shape for tensor in self.tensors)
        derived = DerivedSparsity(
            self.schedule, self.asking, self.target_sparsity, self.allocation, shapes
        )
        for place, tensor in enumerate(self.tensors):
            tensor.impl.set_derived_sparsity(derived, place)

    def settle(self) -> None:
        """Say that the model is prepared: without a schedule nothing changes from here on."""
        self.settled = True

    def due(self, steps: Sequence[int]) -> float | None:
        """Return the sparsity of the whole group that is due after some steps; None = none is."""
        # They are one, unless a state was loaded whose tensors stood in several groups.
        in_force = list(dict.fromkeys(tensor.impl.scheduled for tensor in self.tensors))
        asked = [self._asked(steps, sparsity) for sparsity in in_force]
        return None if asked == in_force else asked[0]

    def _asked(self, steps: Sequence[int], sparsity: float) -> float:
        if self.schedule is None:
            return sparsity if self.settled else self.target_sparsity
        for step in steps:
            sparsity = self.asking.ask(self.schedule, step, self.target_sparsity, sparsity)
        if not 0.0 <= sparsity <= 1.0:
            raise PruningError(
                f"{self.schedule!r} gave a sparsity of {sparsity} for {self.tensors[0].name!r} at "
                f"step {steps[-1]}; allowed: 0 to 1"
            )
        return sparsity

    def move_to(
        self,
        sparsity: float,
        changing: Changing = nothing,
        dense: Dense = originals,
        parts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Recompute the masks for a sparsity of the whole group, in [0, 1].

        Args:
            sparsity: of the whole group.
            changing: entered with tensors and their dense weights around the change of their masks:
                one, or several that are alike.
            dense: returns the dense weights of such tensors; called before their masks change.
            parts: the ``batches`` of the group's tensors, where they are known.
        """
        shares = self._shares(sparsity)
        if self.allocation == "global":
            if any(tensor.impl.sparsity != shares[0] for tensor in self.tensors):
                self._move_together(shares[0], changing, dense)
        else:
            self._move_each(shares, changing, dense, parts)
        for tensor in self.tensors:
            if tensor.impl.scheduled != sparsity:
                tensor.impl.scheduled = sparsity

    def _move_each(
        self,
        shares: Sequence[float],
        changing: Changing,
        dense: Dense,
        parts: Sequence[Sequence[int]] | None,
    ) -> None:
        for places in batches(self.tensors) if parts is None else parts:
            share = shares[places[0]]  # those of one shape have one
            among = [self.tensors[place] for place in places]
            if due := [tensor for tensor in among if tensor.impl.sparsity != share]:
                weights = dense(due)
                with changing(due, weights):
                    self._update(due, weights, share)

    def _move_together(self, sparsity: float, changing: Changing, dense: Dense) -> None:
        weights = [dense([tensor])[0] for tensor in self.tensors]
        scores = list(map(self._scores, self.tensors, weights))
        masks = global_masks(scores, sparsity)
        for tensor, weight, mask in zip(self.tensors, weights, masks, strict=True):
            with changing([tensor], [weight]):
                tensor.impl.replace_mask(mask, sparsity)

    def _update(
        self, tensors: Sequence[PrunedTensor], weights: Sequence[Tensor], share: float
    ) -> None:
        impls: list[Any] = [tensor.impl for tensor in tensors]
        if len(tensors) > 1:
            update_together(impls, weights, share)
            return
        try:
            impls[0].update(weights[0], share)
        except NoGradientError as error:  # a criterion does not know the name of its tensor
            raise NoGradientError(tensors[0].name) from error

    def _scores(self, tensor: PrunedTensor, weight: Tensor) -> Scores:
        try:
            return tensor.impl.ranking(weight)
        except NoGradientError as error:
            raise NoGradientError(tensor.name) from error

    def allocated(self, sparsity: float) -> list[float]:
        """Return what a sparsity of the whole group means for each of its tensors, in [0, 1]."""
        return allocate(self.allocation, [tensor.shape for tensor in self.tensors], sparsity)

    def _shares(self, sparsity: float) -> list[float]:
        """Return the same where some began with zeros, which they keep."""
        shares = self.allocated(sparsity)
        return list(map(max, shares, self._floors)) if self._floors else shares

    def _floors_now(self) -> list[float]:
        """Return the sparsities that the tensors began with; none where none had zeros."""
        floors = [tensor.impl.floor or 0.0 for tensor in self.tensors]
        if not any(floors):
            return []
        if self.allocation != "global":
            return floors
        sizes = [prod(tensor.shape) for tensor in self.tensors]
        return [share_of(sum(map(prune_count, sizes, floors)), sum(sizes))] * len(floors)


def grouped(
    tensors: Sequence[tuple[PrunedTensor, SparsitySchedule | None]], config: MagnitudePrunerConfig
) -> list[MaskGroup]:
    """Put tensors with equal schedules and targets together, if they start at equal sparsities.

    They do, unless they have masks already: those that differ need a ``prev_sparsity`` each. What
    cannot take part in the allocation is refused, and so is a criterion without scores that is not
    to let weights come back.
    """
    groups: list[MaskGroup] = []
    peers: dict[tuple[float, float], list[MaskGroup]] = {}  # by target and start
    for tensor, schedule in tensors:
        _check(tensor, config)
        tensor.impl.allow_regrowth = config.allow_regrowth
        target, start = tensor.impl.target_sparsity, tensor.impl.scheduled
        among = peers.setdefault((target, start), [])
        for group in among:
            if group.schedule == schedule:
                group.tensors.append(tensor)
                break
        else:
            among.append(MaskGroup(schedule, target, config.allocation, [tensor]))
            groups.append(among[-1])
    for group in groups:
        group.set_targets()
        group.set_derived_sparsity()
    return groups


def will_prune(model: nn.Module, config: MagnitudePrunerConfig) -> bool:
    """Return whether pruning a plain model to its targets takes at least one element.

    Targets may be so small that they take none. False as well where the weights cannot be known
    yet, or not by the type of their modules.
    """
    try:
        targets = find_targets(model, config).targets
    except PruningError:
        return False
    groups: dict[tuple[int, float], list[Target]] = {}
    for target in targets:
        share = target.spec.pruning_scheme.target_for(target.spec.target_sparsity)
        groups.setdefault((id(target.schedule), share), []).append(target)
    return any(
        target.spec.pruning_scheme.pruned_elements(tuple(target.weight.shape), share) > 0
        for (_, sparsity), members in groups.items()
        for target, share in zip(
            members,
            allocate(config.allocation, [tuple(one.weight.shape) for one in members], sparsity),
            strict=True,
        )
    )


def _check(tensor: PrunedTensor, config: MagnitudePrunerConfig) -> None:
    allocation, scheme = config.allocation, tensor.impl.spec.pruning_scheme
    kind = type(tensor.impl).__name__
    if not config.allow_regrowth and not tensor.impl.has_score():
        raise PruningError(
            f"allow_regrowth=False needs scores, and {kind} of {tensor.name!r} overrides only "
            "compute_mask; allowed: allow_regrowth=True, or a criterion that overrides score"
        )
    if allocation == "erdos_renyi" and isinstance(scheme, NMStructured):
        raise AllocationError(tensor.name, allocation, "n:m fixes the sparsity of each tensor")
    if allocation != "global":
        return
    if not isinstance(scheme, Unstructured):
        reason = f"one threshold needs single weights, and the scheme is {type(scheme).__name__}"
        raise AllocationError(tensor.name, allocation, reason)
    if not tensor.impl.has_score():
        reason = f"one threshold needs scores, and {kind} overrides only compute_mask"
        raise AllocationError(tensor.name, allocation, reason)
