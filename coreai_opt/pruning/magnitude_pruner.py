"""The pruner: puts masks on a model, moves them along their schedules, folds them in."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from coreai_opt.common import CoreMLExportError, ExportBackend
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.errors import (
    DivergedWeightError,
    MissingZerosWarning,
    UnreachableSparsityWarning,
)
from coreai_opt.pruning.folding import fold_masks, remember_order
from coreai_opt.pruning.forward_trial import noted_writes
from coreai_opt.pruning.groups import MaskGroup, grouped, nothing
from coreai_opt.pruning.left_out import refuse_merging
from coreai_opt.pruning.loading import load_prepared
from coreai_opt.pruning.operations import supported_types, uses_by_call
from coreai_opt.pruning.optimizer_state import OptimizerMasking
from coreai_opt.pruning.reachable import unreachable_table
from coreai_opt.pruning.recurrent import give_masked_weights
from coreai_opt.pruning.selection import has_nan
from coreai_opt.pruning.spec.prune_impl import ScheduleClock
from coreai_opt.pruning.targets import (
    PrunedTensor,
    Target,
    find_targets,
    masked_names,
    pruned_tensors,
)
from coreai_opt.pruning.zeros import MaskedZeros, masked_zeros, missing_zeros

__all__ = ["MagnitudePruner"]


class MagnitudePruner:
    """Prunes a model along schedules, by magnitude or by what else the specs say.

    Args:
        model: the model; changed in place by ``prepare``.
        config: what is pruned, how far and when; None = 50 % everywhere, at once.

    Attributes:
        update_count: how often this pruner has computed masks, several tensors at once being once.

    Example:
        >>> import torch
        >>> from coreai_opt.pruning import MagnitudePruner
        >>> from coreai_opt.pruning.config import MagnitudePrunerConfig, PolynomialDecaySchedule
        >>> ramp = PolynomialDecaySchedule(total_iters=3, power=1)
        >>> config = MagnitudePrunerConfig.uniform(0.5, ramp)
        >>> pruner = MagnitudePruner(torch.nn.Linear(4, 4), config)
        >>> model = pruner.prepare()
        >>> for _ in range(3):
        ...     pruner.step()
        ...     print(int((model.weight == 0).sum()))
        4
        8
        8
        >>> list(pruner.finalize().state_dict())
        ['weight', 'bias']
    """

    def __init__(self, model: nn.Module, config: MagnitudePrunerConfig | None = None) -> None:
        self.model = model
        self.config = config if config is not None else MagnitudePrunerConfig()
        self._clock = ScheduleClock()
        self._groups: list[MaskGroup] = []
        self._masking: OptimizerMasking | None = None
        self._prepared = False
        self._final: dict[str, MaskedZeros] = {}  # of the masks that were folded in
        self.update_count = 0

    @staticmethod
    def supported_modules() -> tuple[type[nn.Module], ...]:
        """Return the types of modules whose weights are pruned, subclasses of them included."""
        return tuple(supported_types())

    @property
    def step_count(self) -> int:
        """Steps finished on the schedules' clock; it travels in the model's state dict."""
        return self._clock.step_count

    def prepare(
        self,
        example_inputs: Any = None,
        *,
        state_dict: Mapping[str, Any] | None = None,
        masked: Collection[str] | None = None,
    ) -> nn.Module:
        """Put masks on the weights to prune, in place, and apply the schedules' step 0.

        With the state dict of a model that was prepared with the same config, weights, masks and
        step are loaded from it instead: no mask is computed, and ``step`` goes on from there.

        Without inputs the weights are found by module type: linear, convolution,
        recurrent and attention layers. With inputs the model is run once, in evaluation mode and
        without gradients, and the weights are those parameters that it hands to the functions of
        torch (``linear``, the convolutions, ``lstm`` and its like,
        ``multi_head_attention_forward``), whichever module holds them; a weight whose
        op does not run is left alone.

        A weight that several modules share (tied weights, a module under two names) gets one mask
        and stays shared.

        Frozen weights (``requires_grad=False``, in a model of which something else is trained) and
        adapters of PEFT stay dense unless a config by name reaches them.

        Args:
            example_inputs: what the model is called with: a tensor, a tuple or list of positional
                arguments, or a dict of keyword arguments.
            state_dict: of a prepared model, of this package or of the documented API; None = the
                model is prepared for the first time.
            masked: the names of the weights that carried masks in a state dict that is loaded
                next: only those are prepared, and what a config by name reaches, whatever is frozen
                now; None = those of ``state_dict``, or all.

        Returns:
            The same model. ``module.parametrizations.weight[0]`` is the ``PruneImplBase``,
            ``module.parametrizations.weight.original`` the dense weight.

        Raises:
            RuntimeError: the model has already been prepared, or the state dict does not fit what
                the config prunes; the message says what differs, and the model has no masks.
            PruningError: nothing to prune, a name that matches nothing, or a weight that a mask
                would break.
            DivergedWeightError: a weight that is pruned at once has NaN.

        Warns:
            UnreachableSparsityWarning: a scheme cannot prune exactly as much as is asked; the
                message is a table of the layers.
            LeftDenseWarning: weights stay dense that the config does not leave dense by itself:
                frozen ones, adapters, and weights of two or more dimensions that no op that prunes
                uses, by the type of their module.
            UnseenForwardWarning: layers compute in a way of their own that cannot be looked into.
            LostWriteWarning: layers write to their weight in the forward pass.
            UserWarning: the config leaves every weight dense.
        """
        self._begin_anew()
        uses, written = None, set[int]()
        if example_inputs is not None:
            with noted_writes(self.model) as written:
                uses = uses_by_call(self.model, example_inputs)
        if state_dict is not None and masked is None:
            masked = masked_names(state_dict)
        found = find_targets(self.model, self.config, uses, masked)
        if self.config.allow_regrowth:
            found.note_writes(written)
        unmasked = [name for name, reason in found.left_out.items() if reason == "unmasked"]
        for warning in found.warnings(anew=masked is None):
            warnings.warn(warning, stacklevel=2)
        with self._undone_on_error():
            self._put_on(found.targets)
            if state_dict is None:
                self._apply([0])
            else:
                load_prepared(self.model, state_dict, unmasked)
        self._settle()
        return self.model

    def prepare_given(self, targets: Sequence[Target]) -> nn.Module:
        """Put masks on that are given, in place, where ``prepare`` computes those of step 0.

        The clock starts at 0, and ``step`` goes on from these masks; ``load_pruned`` does this.

        Args:
            targets: the weights to prune, each with its ``given`` mask.
        """
        self._begin_anew()
        with self._undone_on_error():
            self._put_on(targets)
        self._settle()
        return self.model

    def _put_on(self, targets: Sequence[Target]) -> None:
        tensors = [_with_mask(target, self._clock) for target in targets]
        pairs = zip(tensors, [target.schedule for target in targets], strict=True)
        self._groups = grouped(list(pairs), self.config)
        if table := unreachable_table(tensors):
            warnings.warn(table, UnreachableSparsityWarning, stacklevel=3)
        for target, tensor in zip(targets, tensors, strict=True):
            for holder in target.holders:
                remember_order(holder.module)
                parametrize.register_parametrization(holder.module, holder.parameter, tensor.impl)
                give_masked_weights(holder.module)
        refuse_merging(self.model)
        self._prepared = True

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
        first = self._clock.step_count + 1
        self._apply(range(first, first + count))
        self._clock.step_count += count

    def finalize(
        self, model: nn.Module | None = None, backend: ExportBackend | str = ExportBackend.Torch
    ) -> nn.Module:
        """Fold the masks into plain weights, in place.

        The model may be prepared again afterwards, by this pruner or by another: its clock then
        starts at 0.

        Args:
            model: a prepared model, None = the pruner's own.
            backend: the format that the model is meant for, a backend or its string; only
                ``"torch"`` is here.

        Returns:
            The model without parametrizations; its state dict has the keys of the unpruned one.

        Raises:
            RuntimeError: the model must be prepared first.
            ValueError: no backend has that name.
            NotImplementedError: the backend is ``"coreai"`` or ``"coreml"``; for ``"coreml"`` it is
                a ``CoreMLExportError``.

        Warns:
            MissingZerosWarning: another model has fewer zeros than the pruner's own, as an average
                whose masks did not follow.
        """
        _refuse_other_backends(ExportBackend(backend))
        if model is not None and model is not self.model:
            return self._finalize_other(model)
        self._check_prepared()
        self.check_weights()
        self.release_optimizers()
        self._final = masked_zeros(pruned_tensors(self.model))
        self._prepared = False
        self._groups.clear()
        # A config may leave every weight dense.
        return fold_masks(self.model) if any(pruned_tensors(self.model)) else self.model

    def _finalize_other(self, model: nn.Module) -> nn.Module:
        final = fold_masks(model)
        masked = masked_zeros(pruned_tensors(self.model)) if self._prepared else self._final
        if missing := missing_zeros(final, masked):
            warnings.warn(MissingZerosWarning(missing), stacklevel=3)
        return final

    def mask_optimizer_state(self, *optimizers: Optimizer) -> None:
        """Keep optimizers from moving pruned weights, from now on.

        While a weight is pruned its dense value stays as it was, whatever momentum and weight decay
        would do to it, and it comes back without momentum. See ``OptimizerMasking``.

        Raises:
            RuntimeError: the model must be prepared first.
        """
        self._check_prepared()
        if self._masking is None:
            self._masking = OptimizerMasking(list(pruned_tensors(self.model)))
        for optimizer in optimizers:
            self._masking.attach(optimizer)

    def release_optimizers(self) -> None:
        """Leave the optimizers that ``mask_optimizer_state`` was given to themselves."""
        if self._masking is not None:
            self._masking.detach()
            self._masking = None

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
        _refuse_nan(pruned_tensors(self.model))

    def _apply(self, steps: Sequence[int]) -> None:
        due = [(group, group.due(steps)) for group in self._groups]
        moved = [(group, sparsity) for group, sparsity in due if sparsity is not None]
        tensors = [tensor for group, _ in moved for tensor in group.tensors]
        if not tensors:
            return
        _refuse_nan(tensors)
        self.update_count += 1
        changing = nothing if self._masking is None else self._masking.mask_changes()
        for group, sparsity in moved:
            group.move_to(sparsity, changing)
        if not self.config.allow_regrowth:
            # Only now: a criterion that raises leaves the dense weights as they were.
            for tensor in tensors:
                tensor.impl.forget(tensor.original)

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
            if any(pruned_tensors(self.model)):
                fold_masks(self.model, masked=False)
            raise

    def _begin_anew(self) -> None:
        if self._prepared or any(pruned_tensors(self.model)):
            raise RuntimeError("the model has already been prepared for pruning")
        # What was finalized may be prepared again, and a copy of it keeps the clock that it had.
        self._clock = ScheduleClock()

    def _check_prepared(self) -> None:
        if not self._prepared:
            raise RuntimeError("the model must be prepared for pruning first: call prepare()")


def _refuse_other_backends(backend: ExportBackend) -> None:
    if backend is ExportBackend.Torch:
        return
    text = (
        f"exporting to {backend.value!r} needs Apple's converters, which are not part of this "
        f"package; allowed: {ExportBackend.Torch.value!r}, whose result they convert"
    )
    raise CoreMLExportError(text) if backend is ExportBackend.CoreML else NotImplementedError(text)


def _with_mask(target: Target, clock: ScheduleClock) -> PrunedTensor:
    impl = target.spec.pruning_algo(target.weight, target.spec, clock)
    if target.given is not None:
        impl.replace_mask(target.given.mask.to(impl.mask.device), target.given.sparsity)
        impl.scheduled = target.given.scheduled
    holder = target.holders[0]
    return PrunedTensor(holder.name, holder.module, holder.parameter, impl)


@torch.no_grad()
def _refuse_nan(tensors: Iterable[PrunedTensor]) -> None:
    """Raise when a dense weight has NaN; one copy to the host for all of them."""
    checked = [tensor for tensor in tensors if not tensor.impl.mask.is_meta]
    if not checked:
        return
    device = checked[0].impl.mask.device
    flags = torch.stack([has_nan(tensor.original).to(device) for tensor in checked])
    if flags.any():
        suspects = zip(checked, flags.tolist(), strict=True)
        bad = [tensor.name for tensor, found in suspects if found and tensor.original.isnan().any()]
        if bad:
            raise DivergedWeightError(bad)
