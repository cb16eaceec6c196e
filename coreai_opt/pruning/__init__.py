"""Pruning library for PyTorch: schedules, masks, pruners. It knows neither Hydra nor Lightning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from coreai_opt.pruning.model.model_summary import summary
    from coreai_opt.pruning.model.stats import count_sparsity
    from coreai_opt.pruning.saving.backends import to_backend
    from coreai_opt.pruning.saving.export import load_pruned, save_pruned, to_semi_structured
    from coreai_opt.pruning.saving.state_dicts import (
        masks_of_state_dict,
        plain_optimizer_state,
        plain_state_dict,
    )

    from .config.module import ModuleMagnitudePrunerConfig, OpMagnitudePrunerConfig
    from .config.pruner import MagnitudePrunerConfig
    from .errors import PruningError
    from .in_place.pruner import InPlacePruner
    from .magnitude_pruner import MagnitudePruner
    from .spec.spec import PruningSpec

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
    "to_backend",
    "to_semi_structured",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".config.module": ["ModuleMagnitudePrunerConfig", "OpMagnitudePrunerConfig"],
        ".config.pruner": ["MagnitudePrunerConfig"],
        ".errors": ["PruningError"],
        ".in_place.pruner": ["InPlacePruner"],
        ".magnitude_pruner": ["MagnitudePruner"],
        ".model.model_summary": ["summary"],
        ".model.stats": ["count_sparsity"],
        ".saving.backends": ["to_backend"],
        ".saving.export": ["load_pruned", "save_pruned", "to_semi_structured"],
        ".saving.state_dicts": ["masks_of_state_dict", "plain_optimizer_state", "plain_state_dict"],
        ".spec.spec": ["PruningSpec"],
    },
)
