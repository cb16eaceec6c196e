"""The pruner: puts masks on a model, moves them along their schedules, folds them in."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from coreai_opt.common import ExportBackend
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import DivergedWeightError, PruningError
from coreai_opt.pruning.export import fold_masks
from coreai_opt.pruning.spec.prune_impl import ScheduleClock
from coreai_opt.pruning.targets import PrunedTensor, find_targets, pruned_tensors

__all__ = ["MagnitudePruner"]


class MagnitudePruner:
    """Prunes a model by magnitude, along schedules.

    Args:
        model: the model; changed in place by ``prepare``.
        config: what is pruned, how far and when; None = 50 % everywhere, at once.

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
        self._scheduled: list[tuple[PrunedTensor, SparsitySchedule]] = []
        self._prepared = False

    @property
    def step_count(self) -> int:
        """Steps finished on the schedules' clock; it travels in the model's state dict."""
        return self._clock.step_count

    def prepare(self) -> nn.Module:
        """Put masks on the weights to prune, in place, and apply the schedules' step 0.

        The weights are found by module type: linear, convolution and attention layers.

        Returns:
            The same model. ``module.parametrizations.weight[0]`` is the ``PruneImplBase``,
            ``module.parametrizations.weight.original`` the dense weight.

        Raises:
            RuntimeError: the model has already been prepared.
            PruningError: nothing to prune, a name that matches nothing, or a weight that a mask
                would break.
        """
        if self._prepared or any(pruned_tensors(self.model)):
            raise RuntimeError("the model has already been prepared for pruning")
        targets = find_targets(self.model, self.config)
        for target in targets:
            weight = getattr(target.module, target.parameter)
            impl = target.spec.pruning_algo(weight, target.spec, self._clock)
            parametrize.register_parametrization(target.module, target.parameter, impl)
            name = f"{target.module_name}.{target.parameter}".lstrip(".")
            tensor = PrunedTensor(name, target.module, target.parameter, impl)
            if target.schedule is None:
                impl.update(tensor.original, target.spec.target_sparsity)
            else:
                self._scheduled.append((tensor, target.schedule))
        self._prepared = True
        self._apply([0])
        return self.model

    def step(self, count: int = 1) -> None:
        """Advance the schedules' clock, and recompute the masks whose sparsity changed.

        Args:
            count: steps to advance, >= 0. The schedules are asked for every step on the way,
                the masks are computed once.

        Raises:
            RuntimeError: the model must be prepared first, or has been finalized.
        """
        self._check_prepared()
        if count < 0:
            raise ValueError(f"count is {count}; allowed: 0 or more")
        first = self._clock.step_count + 1
        self._clock.step_count += count
        self._apply(range(first, first + count))

    def finalize(
        self, model: nn.Module | None = None, backend: ExportBackend = ExportBackend.Torch
    ) -> nn.Module:
        """Fold the masks into plain weights, in place.

        Args:
            model: a prepared model, None = the pruner's own.
            backend: the format that the model is meant for; only ``ExportBackend.Torch`` is here.

        Returns:
            The model without parametrizations; its state dict has the keys of the unpruned one.

        Raises:
            RuntimeError: the model must be prepared first.
            NotImplementedError: a backend other than ``ExportBackend.Torch``.
        """
        if backend is not ExportBackend.Torch:
            raise NotImplementedError(
                f"{backend}: exporting to it needs Apple's converters, which are not part of this "
                "package; finalize with ExportBackend.Torch and convert the result"
            )
        if model is None:
            self._check_prepared()
            self._prepared = False
            self._scheduled.clear()
        return fold_masks(self.model if model is None else model)

    def at_target(self) -> bool:
        """Return whether every mask stands at the target sparsity of its spec."""
        self._check_prepared()
        return all(tensor.at_target for tensor in pruned_tensors(self.model))

    def check_weights(self) -> None:
        """Look for NaN in the pruned weights; copies one number a tensor to the host.

        ``step`` does not look, because that would make it wait for the device.

        Raises:
            DivergedWeightError: names the weights that have NaN.
            RuntimeError: the model must be prepared first.
        """
        self._check_prepared()
        tensors = list(pruned_tensors(self.model))
        found = torch.stack([tensor.original.isnan().any() for tensor in tensors]).tolist()
        if names := [tensor.name for tensor, bad in zip(tensors, found, strict=True) if bad]:
            raise DivergedWeightError(names)

    def _apply(self, steps: "range | list[int]") -> None:
        for tensor, schedule in self._scheduled:
            sparsity = tensor.impl.sparsity
            for step in steps:
                target = tensor.impl.spec.target_sparsity
                sparsity = schedule.compute_sparsity(step, target, sparsity)
            if not 0.0 <= sparsity <= 1.0:
                raise PruningError(
                    f"{schedule!r} gave a sparsity of {sparsity} for {tensor.name!r} at step "
                    f"{steps[-1]}; allowed: 0 to 1"
                )
            if sparsity != tensor.impl.sparsity:
                tensor.impl.update(tensor.original, sparsity)

    def _check_prepared(self) -> None:
        if not self._prepared:
            raise RuntimeError("the model must be prepared for pruning first: call prepare()")
