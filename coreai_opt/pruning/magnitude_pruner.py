"""MagnitudePruner: puts masks on a model as parametrizations and folds them in."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from coreai_opt.common import ExportBackend
from coreai_opt.pruning._torch_internals import give_masked_weights
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.errors import MissingZerosWarning
from coreai_opt.pruning.masks.masking import mask_in_place
from coreai_opt.pruning.model.excluded import refuse_merging
from coreai_opt.pruning.model.targets import PrunedTensor, Target, masked_names, pruned_tensors
from coreai_opt.pruning.saving.backends import check_backend, to_backend
from coreai_opt.pruning.saving.finalized_zeros import MaskedZeros, masked_zeros, missing_zeros
from coreai_opt.pruning.saving.folding import fold_masks, remember_order
from coreai_opt.pruning.saving.loading import load_prepared
from coreai_opt.pruning.saving.optimizer_state import OptimizerMasking
from coreai_opt.pruning.scheduling.groups import nothing
from coreai_opt.pruning.scheduling.scheduled_masks import Moved, ScheduledMasks


class MagnitudePruner(ScheduledMasks):
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
        super().__init__(model, config)
        self._masking: OptimizerMasking | None = None
        self._final: dict[str, MaskedZeros] = {}  # of the masks that were folded in

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
        if state_dict is not None and masked is None:
            masked = masked_names(state_dict)
        found = self._find(example_inputs, masked)
        with self._undone_on_error():
            self._put_on(found.targets)
            if state_dict is None:
                self._apply([0])
            else:
                load_prepared(self.model, state_dict, found.unmasked)
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

    def _place(self, targets: Sequence[Target], tensors: Sequence[PrunedTensor]) -> None:
        for target, tensor in zip(targets, tensors, strict=True):
            for holder in target.holders:
                remember_order(holder.module)
                parametrize.register_parametrization(holder.module, holder.parameter, tensor.impl)
                give_masked_weights(holder.module)
        refuse_merging(self.model)

    def _take_off(self) -> None:
        if any(pruned_tensors(self.model)):
            fold_masks(self.model, masked=False)

    def _keeps_writes(self) -> bool:
        return not self.config.allow_regrowth

    def _move(self, moved: Moved) -> None:
        changing = nothing if self._masking is None else self._masking.mask_changes()
        for group, sparsity, parts in moved:
            group.move_to(sparsity, changing, parts=parts)
        if not self.config.allow_regrowth:
            # Only now: a criterion that raises leaves the dense weights as they were.
            for tensor in (tensor for group, *_ in moved for tensor in group.tensors):
                mask_in_place(tensor.original, tensor.impl.mask)

    def finalize(
        self, model: nn.Module | None = None, backend: ExportBackend | str = ExportBackend.Torch
    ) -> nn.Module:
        """Fold the masks into plain weights, in place.

        The model may be prepared again afterwards, by this pruner or by another: its clock then
        starts at 0.

        Args:
            model: a prepared model, None = the pruner's own.
            backend: the format that the model is meant for, a backend or its string: ``"torch"``,
                plain weights; ``"coreml"``, plain weights and buffers that coremltools reads;
                ``"coreai"``, sparse parametrizations that coreai-torch reads. See ``to_backend``.

        Returns:
            The model without masks. For ``"torch"`` its state dict has the keys of the unpruned
            one.

        Raises:
            RuntimeError: the model must be prepared first.
            ValueError: no backend has that name.
            CoreMLExportError: Core ML has no numbers of the type of a pruned weight.
            NotImplementedError: Core AI has none, or coreai-torch is not installed.

        Warns:
            MissingZerosWarning: another model has fewer zeros than the pruner's own, as an average
                whose masks did not follow.
        """
        backend = ExportBackend(backend)
        if model is not None and model is not self.model:
            _check_backend(model, backend)
            return to_backend(self._finalize_other(model), backend)
        self._check_prepared()
        _check_backend(self.model, backend)
        self.check_weights()
        self.release_optimizers()
        self._final = masked_zeros(pruned_tensors(self.model))
        self._prepared = False
        self._groups.clear()
        # A config may leave every weight dense.
        final = fold_masks(self.model) if any(pruned_tensors(self.model)) else self.model
        return to_backend(final, backend)

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


def _check_backend(model: nn.Module, backend: ExportBackend) -> None:
    # Before anything is folded in: where the backend refuses, the model is as it was.
    dtypes = {tensor.name: tensor.original.dtype for tensor in pruned_tensors(model)}
    check_backend(dtypes, backend)
