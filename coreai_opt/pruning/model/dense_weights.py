"""Dense weights: matrices that a config means to reach and no op leads to, by type of module.

A config reaches layers of prunable kinds. What else has weights (embeddings, a parameter in
``x @ w``, a layer of somebody's own) would stay dense without a word.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from coreai_opt.pruning._torch_internals import parameters_of
from coreai_opt.pruning.config._names import names_type, self_and_ancestors
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.errors import DenseWeight, SparseGradientError
from coreai_opt.pruning.model.operations import WeightUse, parametrizations_of

OPTIONAL: dict[type[nn.Module], str] = {
    nn.Embedding: "embedding",
    nn.EmbeddingBag: "embedding_bag",
    nn.Bilinear: "bilinear",
}
"""Types of modules that are pruned only where a config names the module or its type -> op."""


@dataclass(frozen=True)
class DenseType:
    """The weights of two or more dimensions that modules of one type hold, none of them masked.

    Attributes:
        kind: name of the class of these modules.
        weights: how many there are.
        elements: of all of them.
        nonzero: elements that are not zero, counted.
    """

    kind: str
    weights: int
    elements: int
    nonzero: int


def by_type(weights: Iterable[tuple[str, int, int]]) -> tuple[DenseType, ...]:
    """Return weights (type of module, elements, non-zeros) summed up by type, largest first."""
    found: dict[str, DenseType] = {}
    for kind, elements, nonzero in weights:
        so_far = found.get(kind, DenseType(kind, 0, 0, 0))
        found[kind] = DenseType(
            kind, so_far.weights + 1, so_far.elements + elements, so_far.nonzero + nonzero
        )
    return tuple(sorted(found.values(), key=lambda one: (-one.elements, one.kind)))


def named_uses(model: nn.Module, config: MagnitudePrunerConfig) -> Iterator[WeightUse]:
    """Yield the weights of ``OPTIONAL`` modules that a config names one by one.

    A name counts when it is the module's own, without wildcards; a type when it is one of these, or
    a subclass. A config for all around them, such as ``encoder``, means the layers in it. An
    embedding of sparse gradients that is named is refused.
    """
    names = {key.replace("\\.", ".") for key, one in config.module_name_configs.items() if one}
    types = [key for key, one in config.module_type_configs.items() if one is not None]
    for name, module in model.named_modules(remove_duplicate=False):
        kind = next((kind for kind in OPTIONAL if isinstance(module, kind)), None)
        if kind is None:
            continue
        own = [one for one in type(module).__mro__ if issubclass(one, kind)]
        if name in names or any(names_type(key, one) for key in types for one in own):
            if getattr(module, "sparse", False):
                raise SparseGradientError(f"{name}.weight".lstrip("."))
            op_type = OPTIONAL[kind]
            op_names = (op_type, f"{name}.{op_type}".lstrip("."))
            yield WeightUse(name, module, "weight", "weight", op_type, op_names)


def unreached_weights(
    model: nn.Module, config: MagnitudePrunerConfig, uses: Sequence[WeightUse]
) -> list[DenseWeight]:
    """Return the weights of two or more dimensions that a config asks for and no op leads to.

    One that the config leaves dense (None for its module, or no spec that could be its own) is not
    among them. ``uses`` are the ops that use weights of which it is known what becomes of them.
    """
    places = {(id(use.module), use.parameter) for use in uses}
    settled = {id(parameters_of(use.module).get(use.parameter, use)) for use in uses}
    kinds = {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}
    found: dict[int, DenseWeight] = {}
    for module_name, module in model.named_modules():
        for parameter, value in own_matrices(module):
            is_settled = (id(module), parameter) in places or id(value) in settled
            # Of a layer of somebody's own a single row or column is a scale (as of IA3's adapters).
            is_scale = sum(size > 1 for size in value.shape) < 2
            if is_settled or id(value) in found or is_scale:
                continue
            around = [*self_and_ancestors(module_name), ""] if module_name else [""]
            asked = config.match([(name, kinds[name]) for name in around]).config
            if asked is not None and asked.match((parameter, "weight"), None, ()).spec is not None:
                name = f"{module_name}.{parameter}".lstrip(".")
                found[id(value)] = DenseWeight(name, kind_of(module), value.numel())
    return list(found.values())


def kind_of(module: nn.Module) -> str:
    """Return the name of the class that a module had before it was parametrized."""
    kind = parametrize.type_before_parametrizations(module)
    return kind.__name__


def own_matrices(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of a module's own weights of two or more dimensions.

    Of one that is parametrized it is the largest tensor that the weight is computed from. Biases,
    scales (normalization, one axis longer than 1) and lazy parameters are no weights.
    """
    if isinstance(module, (parametrize.ParametrizationList, nn.LayerNorm, nn.RMSNorm)):
        return
    computed = [
        (name, max(parameters_of(chain).values(), key=torch.numel))
        for name, chain in parametrizations_of(module).items()
        if parameters_of(chain)
    ]
    for name, value in [*computed, *parameters_of(module).items()]:
        is_there = value is not None and not nn.parameter.is_lazy(value)
        if is_there and _is_matrix(value) and not name.startswith("bias"):
            yield name, value


def _is_matrix(value: Tensor) -> bool:
    # A linear layer of one output is one; a scale of (channels, 1, 1) is not.
    return value.dim() == 2 or sum(size > 1 for size in value.shape) > 1
