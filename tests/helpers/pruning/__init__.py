"""A small net, what the pruner has made of it, and what a schedule says step by step."""

import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningSpec,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruneImplBase

Left = Callable[[Fraction], float]

RAMP = PolynomialDecaySchedule(total_iters=6, power=1)


def net() -> nn.Sequential:
    """Two prunable layers of 63 and 45 weights."""
    return nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 5))


def asking(schedule: Any = None, allocation: Any = "uniform", **spec: Any) -> MagnitudePrunerConfig:
    """A config that asks the same of every weight."""
    module = ModuleMagnitudePrunerConfig(
        op_state_spec={"*": PruningSpec(**spec)}, sparsity_schedule=schedule
    )
    return MagnitudePrunerConfig(global_config=module, allocation=allocation)


def prepared(target: float = 0.5, schedule: Any = None) -> tuple[MagnitudePruner, nn.Module]:
    pruner = MagnitudePruner(net(), MagnitudePrunerConfig.uniform(target, schedule))
    return pruner, pruner.prepare()


def zeros(model: nn.Module) -> list[int]:
    """Counted zeros of the two layers of ``net``."""
    return [int((model.get_submodule(name).weight == 0).sum()) for name in ("0", "2")]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def original(model: nn.Module, name: str = "0") -> nn.Parameter:
    return model.get_submodule(name).parametrizations.weight.original


def impl(model: nn.Module, name: str = "0") -> PruneImplBase:
    return model.get_submodule(name).parametrizations.weight[0]


def run(schedule: Any, target: float) -> list[float]:
    """The values of a whole run, each step given the value in force."""
    values: list[float] = []
    for step in range(schedule.end_step + 3):
        values.append(schedule.compute_sparsity(step, target, values[-1] if values else None))
    return values


def walk(ramp: Any, step: int, target: float, left: Left) -> float:
    """The closed form of a ramp by walking through its updates.

    ``left`` is given the share of the updates that is ahead, exactly, and returns the share of the
    way to the target that is.
    """
    if step < ramp.begin_step:
        return float(ramp.initial_sparsity)
    end = ramp.begin_step + ramp.total_iters
    if step >= end:
        return target
    updates = range(ramp.begin_step, end, ramp.update_frequency)
    done = sum(update <= step for update in updates) - 1
    ahead = left(1 - (Fraction(done, len(updates) - 1) if len(updates) > 1 else Fraction(0)))
    return ahead * ramp.initial_sparsity + (1 - ahead) * target


def pruned(model: nn.Module) -> list[str]:
    """Return the names of the weights that carry masks."""
    return [tensor.name for tensor in pruned_tensors(model)]


def warned(model: nn.Module, config: Any, inputs: Any = None) -> list[Any]:
    """Prepare a model, and return what was warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        MagnitudePruner(model, config).prepare(inputs)
    return [one.message for one in told]
