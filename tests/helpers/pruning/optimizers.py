"""Optimizers, and trainings of a small model with them."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.model.targets import pruned_tensors

KINDS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
}


INPUTS = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))


SETTINGS: dict[str, tuple[Any, ...]] = {
    "weight_decay": (0.1,),
    "momentum": (0.9,),
    "amsgrad": (True,),
    "centered": (True,),
    "maximize": (True,),
    "foreach": (True, False),
    "fused": (True,),
    "decoupled_weight_decay": (True,),
    "d": (2.0,),
    "line_search_fn": ("strong_wolfe",),
}


def variants() -> list[Any]:
    """All optimizers with their defaults, and with each setting that they have and we know."""
    cases = []
    for name, kind in KINDS.items():
        known = inspect.signature(kind).parameters
        cases.append(pytest.param(kind, {}, id=name))
        for setting, values in SETTINGS.items():
            cases += [
                pytest.param(kind, {setting: value}, id=f"{name}-{setting}={value}")
                for value in values
                if setting in known and (name, setting) != ("SparseAdam", "maximize")
            ]
    return cases


RAMP = PolynomialDecaySchedule(total_iters=9, power=1)


Make = Callable[[Any], Optimizer]


class Drift(SGD):
    """An optimizer that nobody knows, which moves weights without a gradient."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self._drift()
        super().step(closure)
        self._drift()

    @torch.no_grad()
    def _drift(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                weight.add_(0.01)


OPTIMIZERS: list[Any] = [
    pytest.param(lambda p: SGD(p, 0.1), id="sgd"),
    pytest.param(lambda p: SGD(p, 0.1, momentum=0.9), id="momentum"),
    pytest.param(lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True), id="nesterov"),
    pytest.param(lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.1), id="sgd-decay"),
    pytest.param(lambda p: Adam(p, 0.1, foreach=False), id="adam"),
    pytest.param(lambda p: Adam(p, 0.1, foreach=True), id="adam-foreach"),
    pytest.param(lambda p: Adam(p, 0.1, amsgrad=True, weight_decay=0.1), id="adam-decay"),
    pytest.param(lambda p: AdamW(p, 0.1, weight_decay=0.1, foreach=False), id="adamw"),
    pytest.param(lambda p: AdamW(p, 0.1, weight_decay=0.1, foreach=True), id="adamw-foreach"),
    pytest.param(lambda p: AdamW(p, 0.1, weight_decay=0), id="adamw-no-decay"),
    pytest.param(lambda p: RMSprop(p, 0.1, momentum=0.9, centered=True), id="rmsprop"),
    pytest.param(lambda p: RMSprop(p, 0.1, weight_decay=0.1), id="rmsprop-decay"),
    pytest.param(lambda p: Adagrad(p, 0.1), id="adagrad"),
    pytest.param(lambda p: NAdam(p, 0.1), id="nadam"),
    pytest.param(lambda p: Drift(p, 0.1), id="unknown"),
]


def pruner_of(schedule: Any = RAMP, target: float = 0.8, **fields: Any) -> MagnitudePruner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.LayerNorm(5))
    config = MagnitudePrunerConfig.uniform(target, schedule)
    pruner = MagnitudePruner(model, config.model_copy(update=fields))
    pruner.prepare()
    return pruner


def dense(pruner: MagnitudePruner) -> list[nn.Parameter]:
    return [tensor.original for tensor in pruned_tensors(pruner.model)]


def masks(pruner: MagnitudePruner) -> list[Tensor]:
    return [tensor.impl.mask.clone() for tensor in pruned_tensors(pruner.model)]


def moments(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    state = optimizer.state[weight].values()
    return [value for value in state if isinstance(value, Tensor) and value.shape == weight.shape]


def train(pruner: MagnitudePruner, optimizer: Optimizer, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    batch = torch.randn(7, 6, generator=generator)
    optimizer.zero_grad()
    (pruner.model(batch) - batch[:, :5] ** 2).square().mean().backward()
    optimizer.step()
