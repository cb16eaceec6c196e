"""Configuration of pruning: schedules, and which weights are pruned how far."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .module import ModuleMagnitudePrunerConfig as ModuleMagnitudePrunerConfig
    from .module import OpMagnitudePrunerConfig as OpMagnitudePrunerConfig
    from .pruner import MagnitudePrunerConfig as MagnitudePrunerConfig
    from .schedules import ConstantSparsitySchedule as ConstantSparsitySchedule
    from .schedules import CosineSparsitySchedule as CosineSparsitySchedule
    from .schedules import ExponentialSparsitySchedule as ExponentialSparsitySchedule
    from .schedules import MultiStepSparsitySchedule as MultiStepSparsitySchedule
    from .schedules import PolynomialDecaySchedule as PolynomialDecaySchedule
    from .schedules import SparsityScheduleBase as SparsityScheduleBase

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
        "ConstantSparsitySchedule": ".schedules",
        "CosineSparsitySchedule": ".schedules",
        "ExponentialSparsitySchedule": ".schedules",
        "MagnitudePrunerConfig": ".pruner",
        "ModuleMagnitudePrunerConfig": ".module",
        "MultiStepSparsitySchedule": ".schedules",
        "OpMagnitudePrunerConfig": ".module",
        "PolynomialDecaySchedule": ".schedules",
        "SparsityScheduleBase": ".schedules",
    },
)
