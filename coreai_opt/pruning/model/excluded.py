"""Excluded weights: frozen ones and those of adapters, pruned only when a config names them."""

import sys
from collections.abc import Collection, Mapping
from typing import Any, Literal

from torch import nn
from torch.nn.utils import parametrize

from coreai_opt.pruning._torch_internals import parameters_of
from coreai_opt.pruning.config._names import self_and_ancestors
from coreai_opt.pruning.errors import MaskedMergeError
from coreai_opt.pruning.model.operations import WeightUse

Exclusion = Literal["frozen", "adapter", "unmasked", "altered"]

MERGING = ("merge", "unmerge")


class ExclusionRule:
    """Says why a weight is left dense that a config reaches without naming it.

    A weight is frozen when its ``requires_grad`` is False and another parameter of the model has
    it: in a model of which nothing is trained it says nothing. An adapter is what ``in_adapter``
    takes for one. ``masked`` are the names of the weights that carried masks when the model was
    saved: those are pruned, and no others; None = it is prepared for the first time.
    """

    def __init__(self, model: nn.Module, masked: Collection[str] | None = None) -> None:
        self._masked = None if masked is None else frozenset(masked)
        self._kinds = {
            name: type(module) for name, module in model.named_modules(remove_duplicate=False)
        }
        self._is_trained = any(parameter.requires_grad for parameter in model.parameters())

    def reason(self, use: WeightUse, names: Collection[str]) -> Exclusion | None:
        """Return why a weight, with all of its names, is left out; None when it is not."""
        if self._masked is not None and not self._masked.isdisjoint(names):
            return None
        if in_adapter(use.module_name, self._kinds):
            return "adapter"
        if (self._is_trained or self._masked is not None) and _is_frozen(use):
            return "frozen"
        return None if self._masked is None else "unmasked"


def in_adapter(name: str, kinds: Mapping[str, type]) -> bool:
    """Return whether a module, by its name among the kinds of all, is a part of an adapter of PEFT.

    It is when it stands within a ``BaseTunerLayer`` of PEFT but not in the ``base_layer`` that this
    one wraps, or within the ``prompt_encoder`` of a ``PeftModel``. Whole layers that PEFT trains
    beside them (``modules_to_save``) are layers like others.
    """
    layer = _loaded("peft.tuners.tuners_utils", "BaseTunerLayer")
    model = _loaded("peft.peft_model", "PeftModel")
    for around in [*self_and_ancestors(name), ""]:
        child = name[len(around) :].lstrip(".").partition(".")[0]
        if layer is not None and issubclass(kinds[around], layer):
            return child != "base_layer"
        if model is not None and issubclass(kinds[around], model) and child == "prompt_encoder":
            return True
    return False


def refuse_merging(model: nn.Module) -> None:
    """Keep PEFT from merging adapters into weights that carry masks.

    It would write into the masked copy of the weight, which is made anew with every forward pass:
    what the adapter has learned would be gone without a word.
    """
    layer = _loaded("peft.tuners.tuners_utils", "BaseTunerLayer")
    if layer is None:
        return
    for name, module in model.named_modules():
        if isinstance(module, layer) and parametrize.is_parametrized(_base_of(module)):
            for method in MERGING:
                module.__dict__[method] = _Refusal(name)


def allow_merging(model: nn.Module) -> None:
    """Take back what ``refuse_merging`` has done."""
    for module in model.modules():
        for method in MERGING:
            if isinstance(module.__dict__.get(method), _Refusal):
                del module.__dict__[method]


class _Refusal:
    """Stands in an adapter's place of ``merge`` and ``unmerge``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise MaskedMergeError(self._name)


def _base_of(module: Any) -> nn.Module:
    base: nn.Module = module.get_base_layer()
    return base


def _is_frozen(use: WeightUse) -> bool:
    if parametrize.is_parametrized(use.module, use.parameter):
        parametrizations: Any = use.module.parametrizations
        behind = list(parametrizations[use.parameter].parameters())
    else:
        parameter = parameters_of(use.module).get(use.parameter)
        behind = [] if parameter is None else [parameter]
    return bool(behind) and not any(parameter.requires_grad for parameter in behind)


def _loaded(module: str, name: str) -> type | None:
    """Return a class of a package, None where that is not imported: then nothing is of it."""
    found: type | None = getattr(sys.modules.get(module), name, None)
    return found
