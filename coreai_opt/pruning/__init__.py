"""Pruning for PyTorch: schedules, masks, the pruner. Knows neither Hydra nor Lightning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .config.pruner import MagnitudePrunerConfig as MagnitudePrunerConfig
    from .config.pruner import ModuleMagnitudePrunerConfig as ModuleMagnitudePrunerConfig
    from .errors import PruningError as PruningError
    from .magnitude_pruner import MagnitudePruner as MagnitudePruner
    from .stats import count_sparsity as count_sparsity

__all__ = [
    "MagnitudePruner",
    "MagnitudePrunerConfig",
    "ModuleMagnitudePrunerConfig",
    "PruningError",
    "count_sparsity",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "MagnitudePruner": ".magnitude_pruner",
        "MagnitudePrunerConfig": ".config.pruner",
        "ModuleMagnitudePrunerConfig": ".config.pruner",
        "PruningError": ".errors",
        "count_sparsity": ".stats",
    },
)
