"""Loops with a pruner in place, and what is to hold in them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningSpec,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import (
    PruneImplBase,
    PruningScheme,
    Unstructured,
)

RAMP = PolynomialDecaySchedule(total_iters=6, power=1)
INPUTS = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))


class Cyclic:
    """Prunes more and less: weights come back."""

    def __repr__(self) -> str:
        return "Cyclic()"  # the same in all processes of a test run

    def compute_sparsity(self, step: int, target: float, previous: float | None = None) -> float:
        return target if step % 3 else target / 2


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def config(
    target: float = 0.5,
    schedule: Any = None,
    algo: Any = "default",
    scheme: PruningScheme | None = None,
    **fields: Any,
) -> MagnitudePrunerConfig:
    pattern = Unstructured() if scheme is None else scheme
    spec = PruningSpec(target_sparsity=target, pruning_algo=algo, pruning_scheme=pattern)
    module = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=schedule)
    return MagnitudePrunerConfig(global_config=module, **fields)


def prepared(
    model: nn.Module | None = None, target: float = 0.5, schedule: Any = None, **fields: Any
) -> tuple[InPlacePruner, Any]:
    pruner = InPlacePruner(net() if model is None else model, config(target, schedule, **fields))
    return pruner, pruner.prepare()


def masks(pruner: InPlacePruner) -> dict[str, Tensor]:
    return {tensor.name: tensor.impl.mask.clone() for tensor in pruned_tensors(pruner.model)}


def assert_masked(pruner: InPlacePruner, *, gradients: bool = False) -> None:
    """Look for +0.0, bit for bit, in all that is pruned."""
    pruned = 0
    for tensor in pruned_tensors(pruner.model):
        mask, weight = tensor.impl.mask, tensor.original
        values = [weight.grad] if gradients else [weight.detach()]
        for value in values:
            assert value is not None
            there = value[~mask].float()
            assert not there.view(torch.int32).any(), f"{tensor.name} is not masked"
        assert bool(weight.detach()[mask].any())
        pruned += int((~mask).sum())
    assert pruned


def loss_of(model: nn.Module, inputs: Tensor = INPUTS) -> Tensor:
    return model(inputs).square().mean()


def stepped(pruner: InPlacePruner, model: nn.Module, *optimizers: Any, steps: int = 1) -> None:
    """Train by some steps of the plain loop."""
    for _ in range(steps):
        loss_of(model).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        pruner.step()


class CountingImpl(PruneImplBase):
    """A criterion that overrides compute_mask alone."""

    @staticmethod
    def compute_mask(weight: Tensor, sparsity: float, pruning_scheme: Any) -> Tensor:
        mask = torch.ones(weight.numel(), dtype=torch.bool)
        mask[: int(weight.numel() * sparsity)] = False
        return mask.view(weight.shape)


def ended(pruner: Any, model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Everything that a training ends with, by name."""
    found: dict[str, Tensor] = {}
    for tensor in pruned_tensors(model):
        weight, mask = tensor.original.detach(), tensor.impl.mask
        found |= {f"{tensor.name} mask": mask, f"{tensor.name}": torch.where(mask, weight, 0)}
        for key, value in optimizer.state.get(tensor.original, {}).items():
            if isinstance(value, Tensor):
                found[f"{tensor.name} {key}"] = value.detach().clone()
    return found | {"clock": torch.tensor([pruner.step_count, pruner.update_count])}


def uniform(target: float, schedule: Any, **fields: Any) -> MagnitudePrunerConfig:
    config = MagnitudePrunerConfig.uniform(target, schedule)
    return config.model_copy(update=fields)
