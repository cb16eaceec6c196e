"""Pruning for PyTorch: schedules, masks, the pruner. Knows neither Hydra nor Lightning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .config.module import ModuleMagnitudePrunerConfig as ModuleMagnitudePrunerConfig
    from .config.module import OpMagnitudePrunerConfig as OpMagnitudePrunerConfig
    from .config.pruner import MagnitudePrunerConfig as MagnitudePrunerConfig
    from .errors import PruningError as PruningError
    from .magnitude_pruner import MagnitudePruner as MagnitudePruner
    from .stats import count_sparsity as count_sparsity

__all__ = [
    "MagnitudePruner",
    "MagnitudePrunerConfig",
    "ModuleMagnitudePrunerConfig",
    "OpMagnitudePrunerConfig",
    "PruningError",
    "count_sparsity",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "MagnitudePruner": ".magnitude_pruner",
        "MagnitudePrunerConfig": ".config.pruner",
        "ModuleMagnitudePrunerConfig": ".config.module",
        "OpMagnitudePrunerConfig": ".config.module",
        "PruningError": ".errors",
        "count_sparsity": ".stats",
    },
)
