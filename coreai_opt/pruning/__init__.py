"""Pruning library for PyTorch: schedules, masks, pruners. It knows neither Hydra nor Lightning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from coreai_opt.pruning.model.model_summary import summary as summary
    from coreai_opt.pruning.model.stats import count_sparsity as count_sparsity
    from coreai_opt.pruning.saving.export import load_pruned as load_pruned
    from coreai_opt.pruning.saving.export import save_pruned as save_pruned
    from coreai_opt.pruning.saving.export import to_semi_structured as to_semi_structured
    from coreai_opt.pruning.saving.state_dicts import masks_of_state_dict as masks_of_state_dict
    from coreai_opt.pruning.saving.state_dicts import plain_optimizer_state as plain_optimizer_state
    from coreai_opt.pruning.saving.state_dicts import plain_state_dict as plain_state_dict

    from .config.module import ModuleMagnitudePrunerConfig as ModuleMagnitudePrunerConfig
    from .config.module import OpMagnitudePrunerConfig as OpMagnitudePrunerConfig
    from .config.pruner import MagnitudePrunerConfig as MagnitudePrunerConfig
    from .errors import PruningError as PruningError
    from .in_place.pruner import InPlacePruner as InPlacePruner
    from .magnitude_pruner import MagnitudePruner as MagnitudePruner
    from .spec.spec import PruningSpec as PruningSpec

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
        "count_sparsity": ".model.stats",
        "load_pruned": ".saving.export",
        "masks_of_state_dict": ".saving.state_dicts",
        "plain_optimizer_state": ".saving.state_dicts",
        "plain_state_dict": ".saving.state_dicts",
        "save_pruned": ".saving.export",
        "summary": ".model.model_summary",
        "to_semi_structured": ".saving.export",
    },
)
