"""Configuration of pruning: schedules, and which weights are pruned how far."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .pruner import MagnitudePrunerConfig as MagnitudePrunerConfig
    from .pruner import ModuleMagnitudePrunerConfig as ModuleMagnitudePrunerConfig
    from .schedules import ConstantSparsitySchedule as ConstantSparsitySchedule
    from .schedules import PolynomialDecaySchedule as PolynomialDecaySchedule
    from .schedules import SparsityScheduleBase as SparsityScheduleBase

__all__ = [
    "ConstantSparsitySchedule",
    "MagnitudePrunerConfig",
    "ModuleMagnitudePrunerConfig",
    "PolynomialDecaySchedule",
    "SparsityScheduleBase",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ConstantSparsitySchedule": ".schedules",
        "MagnitudePrunerConfig": ".pruner",
        "ModuleMagnitudePrunerConfig": ".pruner",
        "PolynomialDecaySchedule": ".schedules",
        "SparsityScheduleBase": ".schedules",
    },
)
