"""Tensors that share a schedule and a target: what an allocation divides among them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from coreai_opt.pruning.allocation import allocate
from coreai_opt.pruning.config.pruner import Allocation, MagnitudePrunerConfig
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import AllocationError, PruningError
from coreai_opt.pruning.masks import global_masks
from coreai_opt.pruning.spec.schemes import NMStructured, Unstructured
from coreai_opt.pruning.targets import PrunedTensor

__all__ = ["MaskGroup", "grouped"]


@dataclass
class MaskGroup:
    """Tensors under one schedule with one target; ``schedule`` None = pruned once."""

    schedule: SparsitySchedule | None
    target_sparsity: float
    allocation: Allocation
    tensors: list[PrunedTensor] = field(default_factory=list)

    def set_targets(self) -> None:
        """Tell each tensor at which sparsity it is to arrive."""
        for tensor, share in zip(self.tensors, self._shares(self.target_sparsity), strict=True):
            tensor.impl.target_sparsity = share

    def due(self, steps: Sequence[int]) -> float:
        """Return the sparsity of the whole group that the schedule asks for after some steps.

        Raises:
            PruningError: the schedule gave a sparsity outside [0, 1].
        """
        sparsity = self.tensors[0].impl.scheduled
        if self.schedule is None:
            return self.target_sparsity
        for step in steps:
            sparsity = self.schedule.compute_sparsity(step, self.target_sparsity, sparsity)
        if not 0.0 <= sparsity <= 1.0:
            raise PruningError(
                f"{self.schedule!r} gave a sparsity of {sparsity} for {self.tensors[0].name!r} at "
                f"step {steps[-1]}; allowed: 0 to 1"
            )
        return sparsity

    def is_at(self, sparsity: float) -> bool:
        """Return whether the masks are those of a sparsity of the whole group already."""
        return all(tensor.impl.scheduled == sparsity for tensor in self.tensors)

    def move_to(self, sparsity: float) -> None:
        """Recompute the masks for a sparsity of the whole group, in [0, 1]."""
        if self.allocation == "global":
            scores = [tensor.impl.scores(tensor.original) for tensor in self.tensors]
            for tensor, mask in zip(self.tensors, global_masks(scores, sparsity), strict=True):
                tensor.impl.replace_mask(mask, sparsity)
            return
        for tensor, share in zip(self.tensors, self._shares(sparsity), strict=True):
            if share != tensor.impl.sparsity:
                tensor.impl.update(tensor.original, share)
            tensor.impl.scheduled = sparsity

    def _shares(self, sparsity: float) -> list[float]:
        return allocate(self.allocation, [tensor.shape for tensor in self.tensors], sparsity)


def grouped(
    tensors: Sequence[tuple[PrunedTensor, SparsitySchedule | None]], config: MagnitudePrunerConfig
) -> list[MaskGroup]:
    """Put tensors with equal schedules and targets together, if they start at equal sparsities.

    They do, unless they have masks already: those that differ need a ``prev_sparsity`` each.

    Raises:
        AllocationError: a tensor's scheme or criterion cannot take part in the allocation.
        PruningError: a criterion without scores is not to let weights come back.
    """
    groups: list[MaskGroup] = []
    for tensor, schedule in tensors:
        _check(tensor, config)
        tensor.impl.allow_regrowth = config.allow_regrowth
        target, start = tensor.impl.target_sparsity, tensor.impl.scheduled
        for group in groups:
            same_start = group.tensors[0].impl.scheduled == start
            if group.schedule == schedule and group.target_sparsity == target and same_start:
                group.tensors.append(tensor)
                break
        else:
            groups.append(MaskGroup(schedule, target, config.allocation, [tensor]))
    for group in groups:
        group.set_targets()
    return groups


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
