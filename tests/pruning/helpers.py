"""A small net, and what the pruner has made of it."""

from typing import Any

from torch import nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.spec import PruneImplBase

RAMP = PolynomialDecaySchedule(total_iters=6, power=1)


def net() -> nn.Sequential:
    """Two prunable layers of 63 and 45 weights."""
    return nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 5))


def prepared(target: float = 0.5, schedule: Any = None) -> tuple[MagnitudePruner, nn.Module]:
    pruner = MagnitudePruner(net(), MagnitudePrunerConfig.uniform(target, schedule))
    return pruner, pruner.prepare()


def zeros(model: nn.Module) -> list[int]:
    """Counted zeros of the two layers of ``net``."""
    return [int((model.get_submodule(name).weight == 0).sum()) for name in ("0", "2")]


def original(model: nn.Module, name: str = "0") -> nn.Parameter:
    return model.get_submodule(name).parametrizations.weight.original


def impl(model: nn.Module, name: str = "0") -> PruneImplBase:
    return model.get_submodule(name).parametrizations.weight[0]
