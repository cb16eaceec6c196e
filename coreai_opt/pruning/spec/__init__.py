"""Pruning spec of one tensor: scheme, criterion, and the parametrization that holds the mask."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .criteria import MagnitudePruneImpl, PruneImplBase, RandomPruneImpl, TaylorPruneImpl
    from .schemes import (
        BlockStructured,
        ChannelStructured,
        NMStructured,
        PruningScheme,
        Unstructured,
    )
    from .spec import PruningSpec, default_weight_pruning_spec

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
        ".criteria": ["MagnitudePruneImpl", "PruneImplBase", "RandomPruneImpl", "TaylorPruneImpl"],
        ".schemes": [
            "BlockStructured",
            "ChannelStructured",
            "NMStructured",
            "PruningScheme",
            "Unstructured",
        ],
        ".spec": ["PruningSpec", "default_weight_pruning_spec"],
    },
)
