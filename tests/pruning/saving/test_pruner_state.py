"""What leaves the pruner: finalized models, state dicts to go on from, and copies."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.spec import PruneImplBase

GAPS = PolynomialDecaySchedule(total_iters=10, power=2, update_frequency=3)
LAST = 12


def net(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(2, 9, 3), nn.Flatten(), nn.Linear(27, 5)).to(dtype)


def prepared(
    seed: int = 0, dtype: torch.dtype = torch.float32, schedule: Any = GAPS
) -> MagnitudePruner:
    pruner = MagnitudePruner(net(seed, dtype), MagnitudePrunerConfig.uniform(0.7, schedule))
    pruner.prepare()
    return pruner


def originals(model: nn.Module) -> list[nn.Parameter]:
    return [model.get_submodule(name).parametrizations.weight.original for name in ("0", "2")]


def impls(model: nn.Module) -> list[PruneImplBase]:
    return [model.get_submodule(name).parametrizations.weight[0] for name in ("0", "2")]


def train(pruner: MagnitudePruner, first: int, last: int) -> list[list[Tensor]]:
    """Move the weights and step, as a training would; return masks and weights of each step."""
    seen = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for weight in originals(pruner.model):
            noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
            with torch.no_grad():
                weight.add_(noise, alpha=0.1)
        pruner.step()
        masks = [impl.mask.clone() for impl in impls(pruner.model)]
        seen.append([*masks, *(weight.detach().clone() for weight in originals(pruner.model))])
    return seen


def test_the_state_dict_carries_dense_weights_and_masks() -> None:
    pruner = prepared(schedule=None)
    state = pruner.model.state_dict()
    assert torch.equal(state["0.parametrizations.weight.original"], net()[0].weight)
    assert int((~state["0.parametrizations.weight.0.mask"]).sum()) == 37  # 0.7 of 54
    assert all(isinstance(value, Tensor) for value in state.values())


def test_a_copy_may_be_finalized_while_the_original_goes_on() -> None:
    pruner = prepared()
    train(pruner, 0, 4)
    final = pruner.finalize(copy.deepcopy(pruner.model))
    assert list(final.state_dict()) == list(net().state_dict())
    batch = torch.rand(3, 2, 5)
    assert torch.equal(final(batch), pruner.model(batch))
    train(pruner, 4, LAST)
    assert pruner.at_target()


def attend(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch, batch, batch)[0]


def call(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch)


Forward = Callable[[nn.Module, Tensor], Tensor]
KINDS: list[tuple[Callable[[], nn.Module], tuple[int, ...], Forward]] = [
    (lambda: nn.Linear(6, 5), (2, 6), call),
    (lambda: nn.Linear(6, 5, bias=False), (2, 6), call),
    (lambda: nn.Conv1d(3, 4, 3), (2, 3, 7), call),
    (lambda: nn.Conv2d(3, 4, 3), (2, 3, 5, 5), call),
    (lambda: nn.Conv3d(3, 4, 2), (2, 3, 4, 4, 4), call),
    (lambda: nn.ConvTranspose1d(3, 4, 3), (2, 3, 7), call),
    (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5), call),
    (lambda: nn.ConvTranspose3d(3, 4, 2), (2, 3, 4, 4, 4), call),
    (lambda: nn.MultiheadAttention(6, 2), (4, 2, 6), attend),
    (lambda: nn.MultiheadAttention(6, 2, bias=False, add_bias_kv=True), (4, 2, 6), attend),
    (lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0), (4, 2, 6), call),
]
NAMES = [type(make()).__name__ for make, _, _ in KINDS]


def effective(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a prepared model, masked, under the names of the unpruned one."""
    masked = {}
    for name, value in model.state_dict().items():
        if name.endswith(".original"):
            prefix = name.removesuffix(".original")
            plain = prefix.replace("parametrizations.", "")
            masked[plain] = value * model.state_dict()[f"{prefix}.0.mask"]
        elif "parametrizations." not in name:
            masked[name] = value
    return masked


@pytest.mark.parametrize(("make", "shape", "forward"), KINDS, ids=NAMES)
def test_every_kind_is_pruned_and_runs_forward_and_backward(
    make: Callable[[], nn.Module], shape: tuple[int, ...], forward: Forward
) -> None:
    model = MagnitudePruner(make()).prepare()
    forward(model, torch.rand(shape)).sum().backward()
    weights = {name for name, _ in model.named_parameters() if name.endswith(".original")}
    assert weights
    for name in weights:
        original = model.get_parameter(name)
        mask = model.get_buffer(name.removesuffix("original") + "0.mask")
        assert int((~mask).sum()) == original.numel() // 2
        assert original.grad is not None
        assert original.grad[~mask].count_nonzero() == 0


@pytest.mark.parametrize(("make", "shape", "forward"), KINDS, ids=NAMES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@torch.no_grad()
def test_finalize_folds_the_masks_and_nothing_else(
    make: Callable[[], nn.Module], shape: tuple[int, ...], forward: Forward, training: bool
) -> None:
    dense = make().train(training)
    kinds, keys = [type(module) for module in dense.modules()], list(dense.state_dict())
    pruner = MagnitudePruner(dense)
    batch = torch.rand(shape)
    masked = effective(pruner.prepare())
    output = forward(pruner.model, batch)
    final = pruner.finalize()
    assert final is dense
    assert list(final.state_dict()) == keys
    assert all(torch.equal(value, masked[name]) for name, value in final.state_dict().items())
    assert [type(module) for module in final.modules()] == kinds
    assert torch.equal(forward(final, batch), output)
    again = make().train(training)
    again.load_state_dict(masked)
    torch.testing.assert_close(forward(again, batch), output)


def test_finalize_keeps_the_parameter_that_an_optimizer_holds() -> None:
    model = net()
    parameters = list(model.parameters())
    model[2].weight.requires_grad_(False)
    config = MagnitudePrunerConfig.uniform(0.7)
    pruner = MagnitudePruner(model, config.set_module_name("2", config.global_config))
    pruner.prepare()
    pruner.finalize()
    assert [id(value) for value in model.parameters()] == [id(value) for value in parameters]
    assert [value.requires_grad for value in model.parameters()] == [True, True, False, True]
    assert int((parameters[0] == 0).sum()) == 37


def test_a_model_without_masks_cannot_be_finalized() -> None:
    with pytest.raises(RuntimeError, match="must be prepared"):
        prepared().finalize(net())
