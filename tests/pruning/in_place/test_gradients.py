"""Gradients are masked at the end of a backward pass, whatever the pass is like."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import SGD, Adam, AdamW
from torch.utils.checkpoint import checkpoint

from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning.in_place import (
    INPUTS,
    RAMP,
    assert_masked,
    loss_of,
    masks,
    net,
    prepared,
)


def attached(model: nn.Module | None = None, **fields: Any) -> tuple[Any, Any, SGD]:
    pruner, model = prepared(model, **fields)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    pruner.attach(optimizer)
    return pruner, model, optimizer


def plain_gradients(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """What autograd gives for the same weights, without hooks."""
    twin = net()
    twin.load_state_dict(model.state_dict())
    loss(twin.to(next(model.parameters()).dtype)).backward()
    return {name: value.grad for name, value in twin.named_parameters() if value.grad is not None}


def expected(pruner: Any, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = masks(pruner)
    return {
        name: torch.where(kept[name], value, 0) if name in kept else value
        for name, value in gradients.items()
    }


def assert_gradients(model: nn.Module, wanted: dict[str, Tensor]) -> None:
    for name, value in model.named_parameters():
        assert value.grad is not None
        assert torch.equal(value.grad, wanted[name]), name


def test_clipping_sees_masked_gradients() -> None:
    pruner, model, _ = attached()
    wanted = expected(pruner, plain_gradients(model, loss_of))
    loss_of(model).backward()
    assert_gradients(model, wanted)
    norm = torch.stack([value.norm() for value in wanted.values()]).norm()
    assert float(clip_grad_norm_(model.parameters(), 0.01)) == pytest.approx(float(norm))


def test_clipped_gradients_stay_masked_in_the_step() -> None:
    pruner, model, optimizer = attached(schedule=RAMP)
    for _ in range(8):
        loss_of(model).backward()
        clip_grad_value_(model.parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        if pruner.step_count > 1:
            assert_masked(pruner)
    for tensor in pruned_tensors(model):
        moments = optimizer.state[tensor.original]["momentum_buffer"]
        assert not moments[~tensor.impl.mask].any()
        assert moments.any()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_of_several_passes_add_up(set_to_none: bool) -> None:
    pruner, model, optimizer = attached()
    for _ in range(2):
        optimizer.zero_grad(set_to_none=set_to_none)
        wanted = expected(
            pruner,
            plain_gradients(model, lambda it: loss_of(it, INPUTS[:8]) + loss_of(it, INPUTS[8:])),
        )
        loss_of(model, INPUTS[:8]).backward()
        loss_of(model, INPUTS[8:]).backward()
        assert_masked(pruner, gradients=True)
        for name, value in model.named_parameters():
            torch.testing.assert_close(value.grad, wanted[name])


def test_two_losses_that_reach_different_layers() -> None:
    pruner, model, optimizer = attached()
    hidden = model[0](INPUTS)
    hidden.square().sum().backward(retain_graph=True)
    assert model[2].weight.grad is None
    model[2](hidden.detach()).square().sum().backward()
    assert_masked(pruner, gradients=True)
    model[2](hidden).sum().backward()
    assert_masked(pruner, gradients=True)
    optimizer.step()
    assert_masked(pruner)


def test_two_models_and_two_optimizers_in_turn() -> None:
    """A generator and a discriminator, as parts of one model."""
    both = nn.ModuleDict({"generator": net(1), "discriminator": nn.Linear(4, 1)})
    pruner, _ = prepared(both)
    makers: Any = (both["generator"], both["discriminator"])
    optimizers = [AdamW(part.parameters(), 0.01, weight_decay=0.1) for part in makers]
    pruner.attach(*optimizers)
    for _ in range(3):
        for turn in (1, 0):
            optimizers[turn].zero_grad()
            made = both["generator"](INPUTS)
            both["discriminator"](made.detach() if turn else made).mean().backward()
            clip_grad_norm_(makers[turn].parameters(), 1.0)
            optimizers[turn].step()
            assert_masked(pruner)
        pruner.step()


class Broken(Exception):
    """Raised by a hook in the middle of a backward pass."""


def test_a_pass_that_is_broken_off_and_the_next_one() -> None:
    pruner, model, optimizer = attached()

    def break_off(_: Tensor) -> None:
        raise Broken

    for after in (optimizer.step, optimizer.zero_grad):
        handle = model[0].weight.register_hook(break_off)
        with pytest.raises(Broken):
            loss_of(model).backward()
        handle.remove()
        after()
        loss_of(model).backward()
        assert_masked(pruner, gradients=True)
        optimizer.step()
        assert_masked(pruner)


def penalty(model: nn.Module) -> Tensor:
    """The norm of the gradient, as part of a loss."""
    weights = [value for value in model.parameters() if value.dim() > 1]
    return torch.stack([value.grad.square().sum() for value in weights if value.grad is not None])


@pytest.mark.filterwarnings("ignore:Using backward.* with create_graph=True")
def test_a_gradient_with_a_graph_is_differentiated_once_more() -> None:
    pruner, model, _ = attached(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)))
    twin = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    twin.load_state_dict(model.state_dict())
    loss_of(model).backward(create_graph=True)
    own = torch.autograd.grad(loss_of(twin), list(twin.parameters()), create_graph=True)
    kept = masks(pruner)
    wanted = dict(zip([name for name, _ in twin.named_parameters()], own, strict=True))
    masked = expected(pruner, wanted)
    assert_gradients(model, masked)
    penalties = torch.stack([masked[name].square().sum() for name in kept])
    seconds = torch.autograd.grad(penalties.sum(), [twin[0].weight, twin[2].weight])
    before = [layer.weight.grad.detach().clone() for layer in (model[0], model[2])]
    penalty(model).sum().backward()
    assert_masked(pruner, gradients=True)
    for layer, name, first, second in zip((model[0], model[2]), kept, before, seconds, strict=True):
        torch.testing.assert_close(
            layer.weight.grad.detach(), first + torch.where(kept[name], second, 0)
        )


def test_gradients_that_autograd_returns_are_whole_and_masked_when_they_are_set() -> None:
    pruner, model, optimizer = attached()
    for _ in range(30):  # the memory of one is soon that of another
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()
        weights = list(model.parameters())
        found = torch.autograd.grad(loss_of(model), weights)
        assert found[0][~masks(pruner)["0.weight"]].any()
        for weight, gradient in zip(weights, found, strict=True):
            weight.grad = gradient
        del found, gradient
        optimizer.step()
        for tensor in pruned_tensors(model):
            moments = optimizer.state[tensor.original]["momentum_buffer"]
            assert not moments[~tensor.impl.mask].any()
        optimizer.zero_grad()


def test_a_gradient_that_has_the_place_of_one_that_was_masked() -> None:
    pruner, model, optimizer = attached()
    loss_of(model).backward()
    weight = model[0].weight
    place, version = id(weight.grad), weight.grad._version
    weight.grad = None
    others = []
    for _ in range(1000):
        others.append(torch.ones_like(weight))
        if id(others[-1]) == place:
            break
    assert id(others[-1]) == place
    for _ in range(version):
        others[-1].add_(1)
    weight.grad = others[-1]
    optimizer.step()
    assert not optimizer.state[weight]["momentum_buffer"][~masks(pruner)["0.weight"]].any()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_layers(use_reentrant: bool) -> None:
    pruner, model, optimizer = attached()
    wanted = expected(pruner, plain_gradients(model, loss_of))
    inputs = INPUTS.clone().requires_grad_()
    for layers in (model, model):  # twice: gradients accumulate
        hidden: Any = inputs
        for layer in layers:
            hidden = checkpoint(layer, hidden, use_reentrant=use_reentrant)
        hidden.square().mean().backward()
    assert_masked(pruner, gradients=True)
    assert_gradients(model, {name: 2 * value for name, value in wanted.items()})
    optimizer.step()
    assert_masked(pruner)


@pytest.mark.parametrize("way", ["add_", "replace", "scale"])
def test_what_is_done_to_gradients_before_the_step(way: str) -> None:
    pruner, model, optimizer = attached()
    for _ in range(3):
        loss_of(model).backward()
        for weight in model.parameters():
            noise = torch.ones_like(weight)
            if way == "add_":
                weight.grad.add_(noise)
            elif way == "replace":
                weight.grad = weight.grad + noise
            else:
                torch._foreach_add_([weight.grad], [noise])
        optimizer.step()
        assert_masked(pruner)
        for tensor in pruned_tensors(model):
            assert not optimizer.state[tensor.original]["momentum_buffer"][~tensor.impl.mask].any()
        optimizer.zero_grad()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, -0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_any_value_at_a_pruned_place_becomes_zero(value: float, dtype: torch.dtype) -> None:
    pruner, model, optimizer = attached(net().to(dtype))
    kept = masks(pruner)
    loss_of(model, INPUTS.to(dtype)).backward()
    for tensor in pruned_tensors(model):
        tensor.original.grad[~kept[tensor.name]] = value
    optimizer.step()
    assert_masked(pruner)
    assert_masked(pruner, gradients=True)
    with torch.no_grad():
        for tensor in pruned_tensors(model):
            tensor.original[~kept[tensor.name]] = value
    pruner.mask_weights()
    assert_masked(pruner)
    assert not any(weight.isnan().any() for weight in model.parameters())


def test_a_pass_that_gives_infinite_gradients_to_pruned_weights_alone() -> None:
    pruner, model, optimizer = attached()
    away = ~masks(pruner)["0.weight"]
    handle = model[0].weight.register_hook(lambda grad: torch.where(away, torch.inf, grad))
    loss_of(model).backward()
    handle.remove()
    assert torch.isfinite(clip_grad_norm_(model.parameters(), 1.0))
    optimizer.step()
    assert_masked(pruner)


def test_weights_in_the_memory_format_of_images() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(32, 4))
    model = model.to(memory_format=torch.channels_last)
    pruner, _ = prepared(model, schedule=RAMP)
    optimizer = Adam(model.parameters(), 0.01)
    pruner.attach(optimizer)
    images = torch.randn(3, 4, 4, 4).to(memory_format=torch.channels_last)
    for _ in range(8):
        model(images).square().mean().backward()
        if pruner.step_count > 1:
            assert_masked(pruner, gradients=True)
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    assert_masked(pruner)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_weight_that_is_trained_later_has_masked_gradients_at_once() -> None:
    model = net()
    for layer in (model[0], model[2]):
        layer.weight.requires_grad_(False)
    pruner, model, optimizer = attached(model, module_name_configs=named("0", "2"))
    loss_of(model).backward()
    optimizer.step()
    assert_masked(pruner)
    optimizer.zero_grad()
    for layer in (model[0], model[2]):
        layer.weight.requires_grad_(True)
    loss_of(model).backward()
    assert_masked(pruner, gradients=True)


def named(*names: str) -> dict[str, Any]:
    module = {"op_state_spec": {"*": {"target_sparsity": 0.5}}}
    return dict.fromkeys(names, module)
