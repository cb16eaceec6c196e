"""Models with zeros that are there, and trainings that begin with them."""

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim import SGD, Optimizer

from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePrunerConfig,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule

RAMP = PolynomialDecaySchedule(total_iters=9, power=1)  # an eighth of the target more each step


def net(*shares: float) -> nn.Sequential:
    """Layers of 8 x 8 with shares of zeros, which magnitude has chosen, and biases of zeros."""
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8) for _ in shares]
    for layer, share in zip(layers, shares, strict=True):
        prune.remove(prune.l1_unstructured(layer, "weight", amount=share), "weight")
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def started(
    model: nn.Module, config: MagnitudePrunerConfig | None = None, momentum: float = 0.9
) -> tuple[InPlacePruner, Optimizer]:
    pruner = InPlacePruner(model, config)
    pruner.prepare(masks_from="zeros")
    optimizer = SGD(model.parameters(), lr=0.05, momentum=momentum, weight_decay=0.1)
    pruner.attach(optimizer)
    return pruner, optimizer


def train(pruner: InPlacePruner, optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        torch.manual_seed(pruner.step_count)
        batch = torch.randn(4, 8)
        optimizer.zero_grad()
        pruner.model(batch).square().mean().backward()
        optimizer.step()
        pruner.step()


def zeros_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: each == 0 for name, each in model.named_parameters() if each.dim() > 1}


def counts(model: nn.Module) -> list[int]:
    return [int(zeros.sum()) for zeros in zeros_of(model).values()]
