"""What is done to one tensor: scheme, spec, and the parametrization that holds the mask."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .prune_impl import MagnitudePruneImpl as MagnitudePruneImpl
    from .prune_impl import PruneImplBase as PruneImplBase
    from .schemes import PruningScheme as PruningScheme
    from .schemes import Unstructured as Unstructured
    from .spec import PruningSpec as PruningSpec
    from .spec import default_weight_pruning_spec as default_weight_pruning_spec

__all__ = [
    "MagnitudePruneImpl",
    "PruneImplBase",
    "PruningScheme",
    "PruningSpec",
    "Unstructured",
    "default_weight_pruning_spec",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "MagnitudePruneImpl": ".prune_impl",
        "PruneImplBase": ".prune_impl",
        "PruningScheme": ".schemes",
        "PruningSpec": ".spec",
        "Unstructured": ".schemes",
        "default_weight_pruning_spec": ".spec",
    },
)
