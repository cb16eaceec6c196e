"""Going on from a state dict: a stand-in for the masks of the documented API, and trainings.

The stand-in is made by the state that those masks are documented to have.
"""

import io
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningSpec,
    count_sparsity,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from tests.helpers.pruning import impl, net, original

GAPS = PolynomialDecaySchedule(total_iters=20, power=2, update_frequency=3)
LAYERS = ("0", "2")


class DocumentedMask(nn.Module):
    """A mask of the weight's dtype (1 = keep) and the count of the steps, both buffers."""

    mask: Tensor
    step_count: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight))
        self.register_buffer("step_count", torch.tensor(0, dtype=torch.int64))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def with_documented_masks(model: nn.Module, *names: str) -> nn.Module:
    """Put such masks on the weights of the modules of these names."""
    for name in names:
        module = model.get_submodule(name)
        weight: Any = module.weight
        parametrize.register_parametrization(module, "weight", DocumentedMask(weight.detach()))
    return model


def of(scheme: Any = None, schedule: Any = GAPS, **more: Any) -> MagnitudePrunerConfig:
    spec = PruningSpec(target_sparsity=0.8, **({"pruning_scheme": scheme} if scheme else {}))
    module = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=schedule)
    return MagnitudePrunerConfig(global_config=module, **more)


def prepared(
    config: MagnitudePrunerConfig, dtype: torch.dtype = torch.float32
) -> tuple[MagnitudePruner, nn.Module]:
    pruner = MagnitudePruner(net().to(dtype), config)
    return pruner, pruner.prepare()


def train(pruner: MagnitudePruner, first: int, last: int) -> list[list[Tensor]]:
    """Move the weights and step; return what was seen after each step."""
    seen = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for name in LAYERS:
            weight = original(pruner.model, name)
            noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
            with torch.no_grad():
                weight.add_(noise, alpha=0.3)
        pruner.step()
        seen.append([value.clone() for value in pruner.model.state_dict().values()])
    return seen


def same(one: list[list[Tensor]], other: list[list[Tensor]]) -> bool:
    return all(
        torch.equal(a, b)
        for step, again in zip(one, other, strict=True)
        for a, b in zip(step, again, strict=True)
    )


def numbers(pruner: MagnitudePruner) -> list[Any]:
    impls = [impl(pruner.model, name) for name in LAYERS]
    return [pruner.step_count, *((each.sparsity, each.scheduled) for each in impls)]


def regrown(pruner: MagnitudePruner) -> int:
    return count_sparsity(pruner.model).regrown


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def theirs(dtype: torch.dtype = torch.float32) -> nn.Module:
    return with_documented_masks(net().to(dtype), *LAYERS)
