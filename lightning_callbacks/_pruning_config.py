"""What is pruned how far: one config from what ScheduledPruning is given."""

from collections.abc import Mapping
from typing import Any

from coreai_opt.pruning import MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.config.module import check_schedule
from coreai_opt.pruning.config.schedules import SparsitySchedule
from lightning_callbacks._lightning import pl

__all__ = ["config_of", "example_inputs_of"]


def config_of(
    schedule: SparsitySchedule | Mapping[str, Any] | None,
    target_sparsity: float | None,
    config: MagnitudePrunerConfig | Mapping[str, Any] | None,
) -> MagnitudePrunerConfig:
    """Return a config of its own, with the schedule where it has none.

    Raises:
        ValueError: a bad value, an object without ``compute_sparsity``, or both of
            ``target_sparsity`` and ``config``.
    """
    if config is not None and target_sparsity is not None:
        raise ValueError("both config and target_sparsity are given; allowed: one of them")
    if target_sparsity is not None:
        made = MagnitudePrunerConfig.uniform(target_sparsity)
    else:
        made = MagnitudePrunerConfig.model_validate(config if config is not None else {})
    made, known = made.model_copy(deep=True), check_schedule(schedule)
    for module_config in made.module_configs():
        if module_config.sparsity_schedule is None:
            module_config.sparsity_schedule = known
    return made


def example_inputs_of(pl_module: pl.LightningModule) -> Any:
    """Return what the module's forward pass is followed on.

    Raises:
        PruningError: the module has no ``example_input_array``.
    """
    if pl_module.example_input_array is None:
        raise PruningError(
            "follow_calls needs an input to follow, and the module's example_input_array is "
            "None; set it in the module's constructor"
        )
    return pl_module.example_input_array
