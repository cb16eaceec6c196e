"""Pruning for PyTorch: schedules, masks, the pruner. Knows neither Hydra nor Lightning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .config.module import ModuleMagnitudePrunerConfig as ModuleMagnitudePrunerConfig
    from .config.module import OpMagnitudePrunerConfig as OpMagnitudePrunerConfig
    from .config.pruner import MagnitudePrunerConfig as MagnitudePrunerConfig
    from .errors import PruningError as PruningError
    from .export import load_pruned as load_pruned
    from .export import save_pruned as save_pruned
    from .export import to_semi_structured as to_semi_structured
    from .in_place.pruner import InPlacePruner as InPlacePruner
    from .magnitude_pruner import MagnitudePruner as MagnitudePruner
    from .model_summary import summary as summary
    from .spec.spec import PruningSpec as PruningSpec
    from .state_dicts import masks_of_state_dict as masks_of_state_dict
    from .state_dicts import plain_optimizer_state as plain_optimizer_state
    from .state_dicts import plain_state_dict as plain_state_dict
    from .stats import count_sparsity as count_sparsity

__all__ = [
    "InPlacePruner",
    "MagnitudePruner",
    "MagnitudePrunerConfig",
    "ModuleMagnitudePrunerConfig",
    "OpMagnitudePrunerConfig",
    "PruningError",
    "PruningSpec",
    "count_sparsity",
    "load_pruned",
    "masks_of_state_dict",
    "plain_optimizer_state",
    "plain_state_dict",
    "save_pruned",
    "summary",
    "to_semi_structured",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "InPlacePruner": ".in_place.pruner",
        "MagnitudePruner": ".magnitude_pruner",
        "MagnitudePrunerConfig": ".config.pruner",
        "ModuleMagnitudePrunerConfig": ".config.module",
        "OpMagnitudePrunerConfig": ".config.module",
        "PruningError": ".errors",
        "PruningSpec": ".spec.spec",
        "count_sparsity": ".stats",
        "load_pruned": ".export",
        "masks_of_state_dict": ".state_dicts",
        "plain_optimizer_state": ".state_dicts",
        "plain_state_dict": ".state_dicts",
        "save_pruned": ".export",
        "summary": ".model_summary",
        "to_semi_structured": ".export",
    },
)
