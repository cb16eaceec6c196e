"""Which tensors of a model a config prunes, and which are pruned already."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig, self_and_ancestors
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import (
    AlreadyParametrizedError,
    NoPrunableLayerError,
    TiedWeightError,
    UninitializedWeightError,
    UnknownModuleError,
)
from coreai_opt.pruning.masks import prune_count
from coreai_opt.pruning.spec.prune_impl import PruneImplBase
from coreai_opt.pruning.spec.spec import PruningSpec

__all__ = [
    "PrunedTensor",
    "Target",
    "find_targets",
    "is_mask_key",
    "prunable_parameters",
    "pruned_tensors",
]

PRUNABLE: dict[type[nn.Module], str] = {
    nn.Linear: "weight",
    nn.Conv1d: "weight",
    nn.Conv2d: "weight",
    nn.Conv3d: "weight",
    nn.ConvTranspose1d: "weight",
    nn.ConvTranspose2d: "weight",
    nn.ConvTranspose3d: "weight",
    nn.MultiheadAttention: "in_proj_weight",
}


@dataclass(frozen=True)
class Target:
    """A tensor that a config prunes; ``schedule`` None = pruned once, when prepared."""

    module_name: str
    module: nn.Module
    parameter: str
    spec: PruningSpec
    schedule: SparsitySchedule | None


@dataclass(frozen=True)
class PrunedTensor:
    """A tensor that carries a mask; ``name`` is the one it has in the unpruned model."""

    name: str
    module: nn.Module
    parameter: str
    impl: PruneImplBase

    @property
    def mask_key(self) -> str:
        """The name of the mask in the state dict of the prepared model."""
        prefix = self.name.removesuffix(self.parameter)
        return f"{prefix}parametrizations.{self.parameter}.0.mask"

    @property
    def at_target(self) -> bool:
        """Whether the mask has as many zeros as the target sparsity of its spec asks for."""
        total = self.impl.mask.numel()
        target = prune_count(total, self.impl.spec.target_sparsity)
        return prune_count(total, self.impl.sparsity) == target

    @property
    def original(self) -> nn.Parameter:
        """The dense weight behind the mask."""
        parametrizations: Any = self.module.parametrizations
        original: nn.Parameter = parametrizations[self.parameter].original
        return original


def is_mask_key(key: str) -> bool:
    """Return whether a key of a state dict is that of a mask, as ``PrunedTensor.mask_key`` is."""
    return re.search(r"(^|\.)parametrizations\.\w+\.0\.mask$", key) is not None


def prunable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield module name, module and parameter name of each weight that can be pruned, in order."""
    for name, module in model.named_modules():
        for kind, parameter in PRUNABLE.items():
            if isinstance(module, kind) and getattr(module, parameter, None) is not None:
                yield name, module, parameter
                break


def pruned_tensors(model: nn.Module) -> Iterator[PrunedTensor]:
    """Yield the tensors of a prepared model that carry a mask, in the order of its modules."""
    for module_name, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        parametrizations: Any = module.parametrizations
        for parameter, chain in parametrizations.items():
            if isinstance(chain[0], PruneImplBase):
                name = f"{module_name}.{parameter}".lstrip(".")
                yield PrunedTensor(name, module, parameter, chain[0])


def find_targets(model: nn.Module, config: MagnitudePrunerConfig) -> list[Target]:
    """Return the tensors that the config prunes, in the order of the model's modules.

    Raises:
        UnknownModuleError: a name in the config matches nothing.
        NoPrunableLayerError: there is nothing to prune.
        AlreadyParametrizedError, TiedWeightError, UninitializedWeightError: a tensor that a mask
            would break.
    """
    _check_patterns(model, config)
    targets = [
        target
        for name, module, parameter in prunable_parameters(model)
        if (target := _target(name, module, parameter, config)) is not None
    ]
    if not targets:
        raise NoPrunableLayerError([kind.__name__ for kind in PRUNABLE])
    _check_ties(model, targets)
    return targets


def _target(
    name: str, module: nn.Module, parameter: str, config: MagnitudePrunerConfig
) -> Target | None:
    module_config = config.module_config(name)
    spec = None if module_config is None else module_config.spec_for(parameter)
    if module_config is None or spec is None:
        return None
    # Hook-based pruning and weight norm leave a plain attribute where the parameter was.
    if parameter not in module._parameters:
        raise AlreadyParametrizedError(f"{name}.{parameter}")
    if is_lazy(getattr(module, parameter)):
        raise UninitializedWeightError(name)
    schedule = module_config.sparsity_schedule
    if schedule is None and config.global_config is not None:
        schedule = config.global_config.sparsity_schedule
    return Target(name, module, parameter, spec, schedule)


def _check_patterns(model: nn.Module, config: MagnitudePrunerConfig) -> None:
    prunable = [name for name, _, _ in prunable_parameters(model)]
    modules = [name for name, _ in model.named_modules()]
    reached = {around for name in prunable for around in self_and_ancestors(name)}
    for pattern, module_config in config.module_name_configs.items():
        # What is left dense need not be prunable.
        names = modules if module_config is None else reached
        if not any(re.fullmatch(pattern, name) for name in names):
            raise UnknownModuleError(pattern, prunable)


def _check_ties(model: nn.Module, targets: list[Target]) -> None:
    # Modules are visited once each: one that stands under two names needs only one mask.
    names: dict[int, list[str]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            names.setdefault(id(parameter), []).append(f"{module_name}.{name}".lstrip("."))
    for target in targets:
        shared = names.get(id(getattr(target.module, target.parameter)), [])
        if len(shared) > 1:
            raise TiedWeightError(shared)
