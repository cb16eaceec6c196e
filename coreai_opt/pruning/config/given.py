"""Config of a callback, made from its schedule, its target or a whole config."""

from collections.abc import Mapping
from typing import Any

from coreai_opt.pruning.config.module import check_schedule
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.config.schedules import SparsitySchedule


def config_of(
    schedule: SparsitySchedule | Mapping[str, Any] | None,
    target_sparsity: float | None,
    config: MagnitudePrunerConfig | Mapping[str, Any] | None,
) -> MagnitudePrunerConfig:
    """Return a config of its own, with the schedule where it has none.

    A bad value, or both of ``target_sparsity`` and ``config``, is a ValueError.
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


def schedules_of(config: MagnitudePrunerConfig) -> list[SparsitySchedule]:
    """Return the schedules of a config; weights that are pruned at once have none."""
    schedules = (module_config.sparsity_schedule for module_config in config.module_configs())
    return [schedule for schedule in schedules if schedule is not None]
