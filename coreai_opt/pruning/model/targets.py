"""Target search: which tensors of a model a config prunes, and which are pruned already."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from coreai_opt.pruning._torch_internals import buffers_of, parameters_of
from coreai_opt.pruning.config._names import self_and_ancestors
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig, Specificity
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.config.usage import ConfigUsage
from coreai_opt.pruning.errors import (
    AlreadyParametrizedError,
    ConflictingConfigError,
    NoPrunableLayerError,
    UninitializedWeightError,
    UnsuitableShapeError,
)
from coreai_opt.pruning.model.dense_weights import named_uses, unreached_weights
from coreai_opt.pruning.model.excluded import ExclusionRule
from coreai_opt.pruning.model.operations import (
    WeightUse,
    parametrizations_of,
    prunable_types,
    uses_by_type,
)
from coreai_opt.pruning.model.target_search import TargetSearch
from coreai_opt.pruning.saving.masks_beside import masks_beside
from coreai_opt.pruning.spec.prune_impl import PruneImplBase
from coreai_opt.pruning.spec.spec import PruningSpec


@dataclass(frozen=True)
class Holder:
    """A module that holds a parameter, alone or together with others (tied weights)."""

    name: str
    module: nn.Module
    parameter: str

    def value(self) -> Any:
        """Return the parameter as the forward pass uses it."""
        return getattr(self.module, self.parameter)


@dataclass(frozen=True)
class GivenMask:
    """A mask to begin with (True = keep), and the sparsity that it was computed for.

    ``scheduled`` is what the schedule asked for; under some allocations it is that of several
    tensors together. ``floor`` is the sparsity below which no later mask goes, None for any.
    """

    mask: Tensor
    sparsity: float
    scheduled: float
    floor: float | None = None


@dataclass(frozen=True)
class Target:
    """A tensor that a config prunes, with all modules that hold it.

    ``schedule`` None = pruned once, when prepared. ``given`` None = the mask of step 0 is computed.
    """

    holders: tuple[Holder, ...]
    weight: nn.Parameter
    spec: PruningSpec
    schedule: SparsitySchedule | None
    given: GivenMask | None = None

    @property
    def name(self) -> str:
        return self.holders[0].name


@dataclass(frozen=True)
class WeightTensor:
    """A weight of a model, prepared or not; ``name`` is the one it has in the unpruned model."""

    holders: tuple[Holder, ...]
    impl: PruneImplBase | None

    @property
    def name(self) -> str:
        return self.holders[0].name

    def value(self) -> Any:
        """Return the weight as the forward pass uses it."""
        return self.holders[0].value()


@dataclass(frozen=True)
class PrunedTensor:
    """A tensor that has a mask; ``name`` is the one it has in the unpruned model."""

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
    def shape(self) -> tuple[int, ...]:
        return tuple(self.impl.mask.shape)

    @property
    def asked(self) -> int:
        """How many zeros the target sparsity asks for."""
        return self.pruned_at(self.impl.target_sparsity)

    @property
    def at_target(self) -> bool:
        """Whether the mask has as many zeros as its target sparsity asks for."""
        return self.pruned_at(self.impl.sparsity) == self.asked

    def pruned_at(self, sparsity: float) -> int:
        """Return how many elements the scheme prunes at a sparsity in [0, 1]."""
        return self.impl.spec.pruning_scheme.pruned_elements(self.shape, sparsity)

    @property
    def is_beside(self) -> bool:
        """Whether the mask is kept beside the model, whose weight it is applied to in place."""
        return masks_beside(self.module).get(self.parameter) is self.impl

    @property
    def is_masked(self) -> bool:
        """Whether the mask is still on the model, or beside it: it has not been folded in."""
        return self.is_beside or parametrize.is_parametrized(self.module, self.parameter)

    @property
    def original(self) -> nn.Parameter:
        """The weight that the optimizer moves: the dense one behind a mask that is on the model."""
        plain: nn.Parameter | None = parameters_of(self.module).get(self.parameter)
        if plain is not None:
            return plain
        parametrizations: Any = self.module.parametrizations
        original: nn.Parameter = parametrizations[self.parameter].original
        return original


MASK_KEY = re.compile(r"(^|\.)parametrizations\.(\w+)\.0\.mask$")


def is_mask_key(key: str) -> bool:
    """Return whether a key of a state dict is that of a mask, as ``PrunedTensor.mask_key`` is."""
    return MASK_KEY.search(key) is not None


def masked_names(keys: Iterable[str]) -> set[str]:
    """Return the names, in the unpruned model, of the weights whose masks are among the keys.

    Example:
        >>> masked_names(["body.parametrizations.weight.0.mask", "body.bias"])
        {'body.weight'}
    """
    return {MASK_KEY.sub(r"\1\2", key) for key in keys if is_mask_key(key)}


def pruned_tensors(model: nn.Module) -> Iterator[PrunedTensor]:
    """Yield the tensors of a prepared model that carry a mask, in the order of its modules.

    A tensor that several modules share is yielded once.
    """
    seen: set[int] = set()
    for holder, impl in masked_holders(model):
        if id(impl) not in seen:
            seen.add(id(impl))
            yield PrunedTensor(holder.name, holder.module, holder.parameter, impl)


def masked_holders(model: nn.Module) -> Iterator[tuple[Holder, PruneImplBase]]:
    """Yield every module of a model that holds a pruned tensor, and its mask, on it or beside."""
    for module_name, module in model.named_modules():
        on_it = [(name, chain[0]) for name, chain in parametrizations_of(module).items()]
        for parameter, impl in [*on_it, *masks_beside(module).items()]:
            if isinstance(impl, PruneImplBase):
                name = f"{module_name}.{parameter}".lstrip(".")
                yield Holder(name, module, parameter), impl


def weight_tensors(model: nn.Module, called: Collection[int] = ()) -> list[WeightTensor]:
    """Return the weights of prunable layers, and all that carry a mask, in the model's order.

    A tensor that several modules share is there once; lazy ones are left out. Parameters whose ids
    are among ``called``, those of tensors that ops were given, read within ``undisturbed``, are
    there as well.
    """
    impls = {(id(holder.module), holder.parameter): impl for holder, impl in masked_holders(model)}
    prunable = {(id(use.module), use.parameter) for use in uses_by_type(model)}
    found: dict[int, list[Holder]] = {}
    wanted: dict[int, PruneImplBase | None] = {}
    for module_name, module in model.named_modules():
        for parameter, tensor in _own_tensors(module):
            holder = Holder(f"{module_name}.{parameter}".lstrip("."), module, parameter)
            key = (id(module), parameter)
            if key in impls or key in prunable or (called and id(holder.value()) in called):
                wanted.setdefault(id(tensor), impls.get(key))
            found.setdefault(id(tensor), []).append(holder)
    return [
        WeightTensor(tuple(holders), wanted[key]) for key, holders in found.items() if key in wanted
    ]


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield names and tensors of a module's own parameters, of parametrized ones the originals."""
    for name, chain in parametrizations_of(module).items():
        yield name, chain.original if chain.is_tensor else chain.original0
    for name, value in parameters_of(module).items():
        if value is not None and not is_lazy(value):
            yield name, value


def find_targets(
    model: nn.Module,
    config: MagnitudePrunerConfig,
    uses: Sequence[WeightUse] | None = None,
    masked: Collection[str] | None = None,
) -> TargetSearch:
    """Return the tensors that the config prunes, in the order in which they are used.

    There are none when the config leaves all of them dense. Frozen weights and those of adapters
    are left out unless a config by name reaches them.

    Args:
        model: the model, without masks.
        config: what is pruned.
        uses: the ops that use the weights; None = by module type.
        masked: the names of the weights that had masks when the model was saved: only those are
            pruned, and what a config by name reaches; None = it is prepared for the first time.

    Raises:
        PruningError: a name or type in the config matches nothing, nothing is left to prune, or a
            tensor cannot be pruned as asked.
    """
    traced = uses is not None
    if uses is None:
        uses = list(uses_by_type(model))
    uses = [*uses, *named_uses(model, config)]
    usage = ConfigUsage(config, by_type=not traced)
    choices: dict[int, list[_Choice]] = {}
    kinds = {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}
    for use in uses:
        key = id(parameters_of(use.module).get(use.parameter, use.module))
        choices.setdefault(key, []).append(_choose(use, kinds, config, usage))
    usage.check(kinds, uses)
    holders, rule, found = holders_of(model), ExclusionRule(model, masked), TargetSearch(traced)
    for among in choices.values():
        best = _most_specific(among)
        if best.spec is None:
            continue
        own = holders.get(id(parameters_of(best.use.module).get(best.use.parameter)), ())
        names = {best.use.name, *(holder.name for holder in own)}
        reason = None if best.rank[0] == Specificity.NAME else rule.reason(best.use, names)
        if reason is None:
            found.targets.append(_target(best, best.spec, holders))
        else:
            found.excluded[best.use.name] = reason
    if not uses or (masked is None and found.excluded and not found.targets):
        raise NoPrunableLayerError(prunable_types(), found.excluded)
    if masked is None:
        found.unreached.extend(unreached_weights(model, config, uses))
        found.try_out(keeps_writes=not config.allow_regrowth)
    return found


WHOLE = -1  # instead of the rank within a module, when the whole module is left dense


@dataclass(frozen=True)
class _Choice:
    """What a config says of one use of a weight: how specific that is (low = most), and what."""

    use: WeightUse
    rank: tuple[int, int]
    spec: PruningSpec | None
    schedule: SparsitySchedule | None


def _choose(
    use: WeightUse, kinds: dict[str, type], config: MagnitudePrunerConfig, usage: ConfigUsage
) -> _Choice:
    around = self_and_ancestors(use.module_name) if use.module_name else []
    match = config.match([(name, kinds[name]) for name in [*around, ""]])
    usage.note(match, use)
    if match.config is None:
        return _Choice(use, (match.level, WHOLE), None, None)
    rank, spec = match.config.match(use.known_as, use.op_type, use.op_names)
    schedule = match.config.sparsity_schedule
    if schedule is None and config.global_config is not None:
        schedule = config.global_config.sparsity_schedule
    return _Choice(use, (match.level, rank), spec, None if spec is None else schedule)


def _most_specific(choices: list[_Choice]) -> _Choice:
    best = min(choices, key=lambda choice: choice.rank)
    # A tensor with several uses has one mask: what is most specific counts, and must be one thing.
    for other in choices:
        differs = (other.spec, other.schedule) != (best.spec, best.schedule)
        # No level within a module goes over a module that is left dense as a whole.
        if differs and other.rank[0] == best.rank[0] and best.rank[1] in (WHOLE, other.rank[1]):
            raise ConflictingConfigError(best.use.name, other.use.name)
    return best


def _target(choice: _Choice, spec: PruningSpec, holders: dict[int, tuple[Holder, ...]]) -> Target:
    weight = _parameter(choice.use)
    if problem := spec.pruning_scheme.problem(tuple(weight.shape)):
        raise UnsuitableShapeError(choice.use.name, tuple(weight.shape), problem)
    return Target(holders[id(weight)], weight, spec, choice.schedule)


def _parameter(use: WeightUse) -> nn.Parameter:
    parameter: nn.Parameter | None = parameters_of(use.module).get(use.parameter)
    # Weight norm and its like keep the parameter elsewhere and compute the weight from it.
    if parameter is None or parametrize.is_parametrized(use.module, use.parameter):
        masked_by_torch = f"{use.parameter}_mask" in buffers_of(use.module)
        raise AlreadyParametrizedError(use.name, masked_by_torch)
    # With weights from a file, a lazy layer still changes its class at its first batch, which would
    # take the mask away.
    if is_lazy(parameter) or _becomes_another(use.module):
        raise UninitializedWeightError(use.module_name)
    return parameter


def _becomes_another(module: nn.Module) -> bool:
    return isinstance(module, LazyModuleMixin) and module.cls_to_become is not None


def holders_of(model: nn.Module) -> dict[int, tuple[Holder, ...]]:
    """Return, by the id of each parameter, the modules that hold it, in the model's order."""
    holders: dict[int, tuple[Holder, ...]] = {}
    for module_name, module in model.named_modules():
        for parameter, value in parameters_of(module).items():
            if isinstance(value, Tensor):
                name = f"{module_name}.{parameter}".lstrip(".")
                holder = Holder(name, module, parameter)
                holders[id(value)] = (*holders.get(id(value), ()), holder)
    return holders
