"""Base class of the pruners: masks of a model on their schedules."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.errors import DivergedWeightError, UnreachableSparsityWarning
from coreai_opt.pruning.masks.selection import has_nan
from coreai_opt.pruning.masks.together import batches, stacked
from coreai_opt.pruning.model.forward_trial import noted_writes
from coreai_opt.pruning.model.operations import supported_types, uses_by_call
from coreai_opt.pruning.model.reachable import unreachable_table
from coreai_opt.pruning.model.target_search import TargetSearch
from coreai_opt.pruning.model.targets import PrunedTensor, Target, find_targets, pruned_tensors
from coreai_opt.pruning.scheduling.groups import MaskGroup, grouped
from coreai_opt.pruning.spec.clock import ScheduleClock

Moved = Sequence[tuple[MaskGroup, float, Sequence[Sequence[int]]]]
"""Groups of tensors, each with the sparsity that its masks are to be computed for, and with the
places of those that are looked at together."""


class ScheduledMasks(ABC):
    """The masks of a model, their clock, and the groups in which they follow their schedules.

    Args:
        model: the model; changed in place.
        config: what is pruned, how far and when; None = 50 % everywhere, at once.

    Attributes:
        update_count: how often this pruner has computed masks, several tensors at once being once.
    """

    def __init__(self, model: nn.Module, config: MagnitudePrunerConfig | None = None) -> None:
        self.model = model
        self.config = config if config is not None else MagnitudePrunerConfig()
        self.update_count = 0
        self._clock = ScheduleClock()
        self._groups: list[MaskGroup] = []
        self._prepared = False

    @staticmethod
    def supported_modules() -> tuple[type[nn.Module], ...]:
        """Return the types of modules whose weights are pruned, subclasses of them included."""
        return tuple(supported_types())

    @property
    def step_count(self) -> int:
        """Steps finished on the schedules' clock."""
        return self._clock.step_count

    def step(self, count: int = 1) -> None:
        """Advance the schedules' clock, and recompute the masks whose sparsity changed.

        Args:
            count: steps to advance, >= 0. The schedules are asked for every step on the way,
                the masks are computed once.

        Raises:
            RuntimeError: the model must be prepared first, or has been finalized.
            DivergedWeightError: a weight whose mask is due has NaN; masks and clock are as before.
        """
        self._check_prepared()
        if count < 0:
            raise ValueError(f"count is {count}; allowed: 0 or more")
        self.advance_to(self.step_count + count)

    def advance_to(self, reading: int) -> bool:
        """Set the schedules' clock to a reading, and recompute the masks whose sparsity changed.

        Args:
            reading: steps finished; the schedules are asked for every step on the way, the masks
                are computed once. A reading that the clock has passed changes nothing.

        Returns:
            Whether masks were computed.

        Raises:
            RuntimeError: the model must be prepared first, or has been finalized.
            DivergedWeightError: a weight whose mask is due has NaN; masks and clock are as before.
        """
        self._check_prepared()
        before = self.update_count
        if reading > self.step_count:
            self._apply(range(self.step_count + 1, reading + 1))
            self._clock.step_count = reading
        return self.update_count != before

    def at_target(self) -> bool:
        """Return whether every mask stands at the target sparsity of its spec."""
        self._check_prepared()
        return all(tensor.at_target for tensor in pruned_tensors(self.model))

    def check_weights(self) -> None:
        """Look for NaN in the pruned weights; waits for the device once.

        ``step`` looks whenever it recomputes masks.

        Raises:
            DivergedWeightError: names the weights that have NaN.
            RuntimeError: the model must be prepared first.
        """
        self._check_prepared()
        refuse_nan([[tensor] for tensor in pruned_tensors(self.model)])

    @abstractmethod
    def _place(self, targets: Sequence[Target], tensors: Sequence[PrunedTensor]) -> None:
        """Put the masks of tensors onto the model, or beside it."""

    @abstractmethod
    def _take_off(self) -> None:
        """Leave the model as it was before ``_place``, its weights dense."""

    @abstractmethod
    def _keeps_writes(self) -> bool:
        """Return whether a forward pass that writes to a weight writes to the dense one."""

    @abstractmethod
    def _move(self, moved: Moved) -> None:
        """Compute the masks of groups at new sparsities."""

    def _find(self, example_inputs: Any, masked: Collection[str] | None) -> TargetSearch:
        """Return what the config prunes, and warn of what stays dense."""
        uses, written = None, set[int]()
        if example_inputs is not None:
            with noted_writes(self.model) as written:
                uses = uses_by_call(self.model, example_inputs)
        found = find_targets(self.model, self.config, uses, masked)
        if self._keeps_writes():
            found.written.clear()
        else:
            found.note_writes(written)
        for warning in found.warnings(anew=masked is None):
            warnings.warn(warning, stacklevel=3)
        return found

    def _put_on(self, targets: Sequence[Target]) -> None:
        tensors = [_with_mask(target, self._clock) for target in targets]
        pairs = zip(tensors, [target.schedule for target in targets], strict=True)
        self._groups = grouped(list(pairs), self.config)
        if table := unreachable_table(tensors):
            warnings.warn(table, UnreachableSparsityWarning, stacklevel=3)
        self._place(targets, tensors)
        self._prepared = True

    def _apply(self, steps: Sequence[int]) -> None:
        due = [(group, group.due(steps)) for group in self._groups]
        moved = [
            (group, sparsity, batches(group.tensors))
            for group, sparsity in due
            if sparsity is not None
        ]
        if not moved:
            return
        refuse_nan(
            [
                [group.tensors[place] for place in places]
                for group, _, parts in moved
                for places in parts
            ]
        )
        self.update_count += 1
        self._move(moved)

    def _settle(self) -> None:
        for group in self._groups:
            group.settle()

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        # NaN, a criterion that has no scores yet, a weight that torch cannot parametrize.
        try:
            yield
        except Exception:
            self._prepared = False
            self._groups.clear()
            self._take_off()
            raise

    def _begin_anew(self) -> None:
        if self._prepared or any(pruned_tensors(self.model)):
            raise RuntimeError("the model has already been prepared for pruning")
        # What was finalized may be prepared again, and a copy of it keeps the clock that it had.
        self._clock = ScheduleClock()

    def _check_prepared(self) -> None:
        if not self._prepared:
            raise RuntimeError("the model must be prepared for pruning first: call prepare()")


def _with_mask(target: Target, clock: ScheduleClock) -> PrunedTensor:
    impl = target.spec.pruning_algo(target.weight, target.spec, clock)
    if target.given is not None:
        impl.replace_mask(target.given.mask.to(impl.mask.device), target.given.sparsity)
        impl.scheduled, impl.floor = target.given.scheduled, target.given.floor
    holder = target.holders[0]
    return PrunedTensor(holder.name, holder.module, holder.parameter, impl)


@torch.no_grad()
def refuse_nan(parts: Sequence[Sequence[PrunedTensor]]) -> None:
    """Raise when a dense weight has NaN; one copy to the host for all of them.

    Tensors are put together where they are of one shape, dtype and device.
    """
    checked = [part for part in parts if not part[0].impl.mask.is_meta]
    if not checked:
        return
    device = checked[0][0].impl.mask.device
    flags = torch.stack([has_nan(_values(part)).to(device) for part in checked])
    if flags.any():
        suspects = [
            one for part, may in zip(checked, flags.tolist(), strict=True) if may for one in part
        ]
        bad = [one.name for one in suspects if one.original.isnan().any()]
        if bad:
            raise DivergedWeightError(bad)


def _values(tensors: Sequence[PrunedTensor]) -> Tensor:
    weights = [tensor.original for tensor in tensors]
    return stacked(weights) if len(weights) > 1 else weights[0]
