"""Registry of masks beside a model, kept outside of its modules.

Nothing of it is in the module: no copy of it, no file and no graph ever meets a mask.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import nn

if TYPE_CHECKING:
    from coreai_opt.pruning.spec.prune_impl import PruneImplBase

_masks: "WeakKeyDictionary[nn.Module, dict[str, PruneImplBase]]" = WeakKeyDictionary()
_nothing: "Mapping[str, PruneImplBase]" = MappingProxyType({})


def masks_beside(module: nn.Module) -> "Mapping[str, PruneImplBase]":
    """Return the masks of a module's own parameters, by the parameters' names."""
    return _masks.get(module, _nothing)


def put_beside(module: nn.Module, parameter: str, impl: "PruneImplBase") -> None:
    """Say that a module's parameter has a mask."""
    _masks.setdefault(module, {})[parameter] = impl


def take_away(module: nn.Module, parameter: str) -> None:
    """Say that a module's parameter has no mask any more."""
    own = _masks.get(module)
    if own is not None:
        own.pop(parameter, None)
        if not own:
            del _masks[module]
