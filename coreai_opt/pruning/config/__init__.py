"""Configuration of pruning: schedules, and which weights are pruned how far."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .module import ModuleMagnitudePrunerConfig, OpMagnitudePrunerConfig
    from .pruner import MagnitudePrunerConfig
    from .schedules import (
        ConstantSparsitySchedule,
        CosineSparsitySchedule,
        ExponentialSparsitySchedule,
        MultiStepSparsitySchedule,
        PolynomialDecaySchedule,
        SparsityScheduleBase,
    )

__all__ = [
    "ConstantSparsitySchedule",
    "CosineSparsitySchedule",
    "ExponentialSparsitySchedule",
    "MagnitudePrunerConfig",
    "ModuleMagnitudePrunerConfig",
    "MultiStepSparsitySchedule",
    "OpMagnitudePrunerConfig",
    "PolynomialDecaySchedule",
    "SparsityScheduleBase",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".module": ["ModuleMagnitudePrunerConfig", "OpMagnitudePrunerConfig"],
        ".pruner": ["MagnitudePrunerConfig"],
        ".schedules": [
            "ConstantSparsitySchedule",
            "CosineSparsitySchedule",
            "ExponentialSparsitySchedule",
            "MultiStepSparsitySchedule",
            "PolynomialDecaySchedule",
            "SparsityScheduleBase",
        ],
    },
)
