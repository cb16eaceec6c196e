"""Pruning spec of one tensor: scheme, criterion, and the parametrization that holds the mask."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .criteria import MagnitudePruneImpl as MagnitudePruneImpl
    from .criteria import PruneImplBase as PruneImplBase
    from .criteria import RandomPruneImpl as RandomPruneImpl
    from .criteria import TaylorPruneImpl as TaylorPruneImpl
    from .schemes import BlockStructured as BlockStructured
    from .schemes import ChannelStructured as ChannelStructured
    from .schemes import NMStructured as NMStructured
    from .schemes import PruningScheme as PruningScheme
    from .schemes import Unstructured as Unstructured
    from .spec import PruningSpec as PruningSpec
    from .spec import default_weight_pruning_spec as default_weight_pruning_spec

__all__ = [
    "BlockStructured",
    "ChannelStructured",
    "MagnitudePruneImpl",
    "NMStructured",
    "PruneImplBase",
    "PruningScheme",
    "PruningSpec",
    "RandomPruneImpl",
    "TaylorPruneImpl",
    "Unstructured",
    "default_weight_pruning_spec",
]

# The base of the criteria comes with its subclasses: its registry is complete once it is there.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "BlockStructured": ".schemes",
        "ChannelStructured": ".schemes",
        "MagnitudePruneImpl": ".criteria",
        "NMStructured": ".schemes",
        "PruneImplBase": ".criteria",
        "PruningScheme": ".schemes",
        "PruningSpec": ".spec",
        "RandomPruneImpl": ".criteria",
        "TaylorPruneImpl": ".criteria",
        "Unstructured": ".schemes",
        "default_weight_pruning_spec": ".spec",
    },
)
