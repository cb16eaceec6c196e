"""Deep copy of a prepared model."""

import copy
from typing import Any, TypeVar

from torch import nn

from coreai_opt.pruning._torch_internals import compiled_module_type

Model = TypeVar("Model", bound=nn.Module)


def copy_of(model: Model) -> Model:
    """Return a deep copy of a model, prepared or not, in which compiled parts are compiled ones.

    ``copy.deepcopy`` asks a compiled module how it is copied, and gets the answer of the module
    inside, once that has masks: the copy would lack the wrapper, and have other names.
    """
    memo: dict[int, Any] = {}
    wrapper = compiled_module_type()
    if wrapper is not None:
        # From the inside out: a compiled module may hold others.
        for module in reversed(list(model.modules())):
            if isinstance(module, wrapper):
                make, arguments = module.__reduce__()[:2]
                memo[id(module)] = make(*copy.deepcopy(arguments, memo))
    return copy.deepcopy(model, memo)
