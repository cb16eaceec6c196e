"""The dense weight behind a mask: replaced, converted, kept, changed under way, let go."""

import copy
import gc
import pickle
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruningSpec
from tests.helpers.pruning import RAMP, impl, net, original, prepared

pytestmark = pytest.mark.usefixtures("any_size")


def given_masks(regrowth: bool, schedule: Any = None) -> tuple[MagnitudePruner, nn.Module]:
    config = MagnitudePrunerConfig.uniform(0.5, schedule)
    config.allow_regrowth = regrowth
    pruner = MagnitudePruner(net(), config)
    return pruner, pruner.prepare()


def clean(model: nn.Module) -> bool:
    """Return whether every dense weight has a gradient, and none where it is pruned."""
    tensors = list(pruned_tensors(model))
    assert all(tensor.original.grad is not None for tensor in tensors)
    return not any(tensor.original.grad[~tensor.impl.mask].any() for tensor in tensors)


def test_tied_weights_that_were_assigned_apart_are_both_masked() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    MagnitudePruner(model).prepare()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    one, other, mask = original(model), original(model, "2"), impl(model).mask
    assert one is not other
    for _ in range(2):
        model(torch.rand(3, 4)).sum().backward()
        for leaf in (one, other):
            assert leaf.grad is not None
            assert not leaf.grad[~mask].any()
            assert leaf.grad[mask].any()


def test_a_pass_with_other_parameters_in_between_unmasks_nothing() -> None:
    _, model = prepared()
    loss = model(torch.rand(3, 7)).sum()
    others = {
        name: nn.Parameter(value.detach().clone()) for name, value in model.named_parameters()
    }
    between = torch.func.functional_call(model, others, (torch.rand(3, 7),)).sum()
    loss.backward()
    between.backward()
    assert clean(model)
    gradient = others["0.parametrizations.weight.original"].grad
    assert gradient is not None
    assert not gradient[~impl(model).mask].any()


@pytest.mark.parametrize("regrowth", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_that_was_converted_goes_on(regrowth: bool, dtype: torch.dtype) -> None:
    pruner, model = given_masks(regrowth, RAMP)
    for step in range(4):
        model.to(dtype if step % 2 else torch.float32)
        batch = torch.rand(3, 7, dtype=original(model).dtype)
        model.zero_grad()
        model(batch).sum().backward()
        assert clean(model)
        assert model[0].weight.dtype == batch.dtype
        pruner.step()


@pytest.mark.parametrize("regrowth", [True, False])
def test_copies_are_masked_on_their_own(regrowth: bool) -> None:
    _, model = given_masks(regrowth)
    model(torch.rand(3, 7)).sum().backward()
    twin = copy.deepcopy(model)
    twin.zero_grad()
    with torch.no_grad():
        impl(twin).mask.logical_not_()
    for each in (twin, model):
        each.zero_grad()
        each(torch.rand(3, 7)).sum().backward()
        assert clean(each)
    assert not (impl(model).mask & impl(twin).mask).any()


@pytest.mark.parametrize("regrowth", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_loaded_weights_are_masked(regrowth: bool, assign: bool) -> None:
    (_, source), (_, model) = given_masks(regrowth), given_masks(regrowth)
    model(torch.rand(3, 7)).sum().backward()
    model.zero_grad()
    state = {name: value.clone() for name, value in source.state_dict().items()}
    model.load_state_dict(state, assign=assign)
    batch = torch.rand(3, 7)
    for each in (source, model):
        each(batch).sum().backward()
        assert clean(each)
    for one, other in zip(source.parameters(), model.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("regrowth", [True, False])
def test_evaluation_under_way_changes_no_gradient(regrowth: bool) -> None:
    _, model = given_masks(regrowth)
    batch = torch.rand(3, 7)
    with torch.inference_mode():  # first of all
        model(batch)
    model(batch).square().sum().backward()
    expected = original(model).grad.clone()
    model.zero_grad()
    loss = model(batch).square().sum()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            model(torch.rand(5, 7))
    loss.backward()
    assert torch.equal(original(model).grad, expected)
    assert clean(model)


def test_a_weight_that_somebody_keeps_does_not_change() -> None:
    _, model = prepared()
    kept: list[tuple[Any, Tensor]] = []
    for step in range(6):
        with torch.set_grad_enabled(step % 2 == 0):
            weight: Any = model[0].weight
        before = weight.detach().clone()
        kept.append(([weight, weight.detach().view(-1), weight.detach().numpy()][step % 3], before))
        del weight
        original(model).data.mul_(-1.5)  # a hidden change: the next pass has to see it
        mask = impl(model).mask
        assert torch.equal(model[0].weight, torch.where(mask, original(model), 0))
    for value, before in kept:
        assert torch.equal(torch.as_tensor(value).detach().reshape(before.shape), before)


def test_memory_that_somebody_keeps_without_a_tensor_does_not_change() -> None:
    _, model = prepared()
    storage = model[0].weight.detach().untyped_storage()
    before = bytes(storage)
    original(model).data.mul_(3)
    model[0].weight.sum()
    assert bytes(storage) == before


def test_two_passes_before_one_backward_pass_keep_their_own_weights() -> None:
    _, model = prepared()
    first, last = model[0], model[2]
    batch = torch.rand(3, 7)
    expected = []
    for factor in (1.0, -2.0):
        original(model, "2").data.mul_(factor)
        expected.append(torch.autograd.grad(model(batch).sum(), original(model))[0])
    original(model, "2").data.mul_(-0.5)
    losses = []
    for factor in (1.0, -2.0):
        original(model, "2").data.mul_(factor)
        losses.append(last(torch.relu(first(batch))).sum())
    found = [torch.autograd.grad(loss, original(model))[0] for loss in losses]
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(*found)


def test_a_masked_weight_may_be_changed_in_place_in_the_graph() -> None:
    _, model = prepared()
    weight = model[0].weight
    before = original(model).detach().clone()
    weight.mul_(2)
    weight.sum().backward()
    assert torch.equal(original(model).grad, 2.0 * impl(model).mask)
    assert torch.equal(original(model), before)


def test_a_frozen_weight_is_masked_once_it_is_trained() -> None:
    _, model = prepared()
    original(model).requires_grad_(False)
    model(torch.rand(3, 7)).sum().backward()
    assert original(model).grad is None
    original(model).requires_grad_(True)
    model(torch.rand(3, 7)).sum().backward()
    assert clean(model)


@pytest.mark.parametrize("regrowth", [True, False])
def test_nothing_of_it_is_left_after_finalizing(regrowth: bool) -> None:
    pruner, model = given_masks(regrowth)
    model(torch.rand(3, 7)).sum().backward()
    before = [model[0].weight.detach().clone(), model[2].weight.detach().clone()]
    pruner.finalize()
    for layer, weight in zip((model[0], model[2]), before, strict=True):
        assert torch.equal(layer.weight, weight)
        assert not layer.weight._backward_hooks
    model.zero_grad()
    model[0].weight.sum().backward()
    assert bool((model[0].weight.grad == 1).all())
    assert torch.equal(pickle.loads(pickle.dumps(model))[0].weight, before[0])
    again = MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.75))
    again.prepare()
    model.zero_grad()
    model(torch.rand(3, 7)).sum().backward()
    assert clean(model)
    assert int((~impl(model).mask).sum()) == 47


def test_a_dense_weight_can_be_sent_to_another_process() -> None:
    _, model = prepared()
    model(torch.rand(3, 7)).sum().backward()
    assert len(ForkingPickler.dumps(original(model))) > 0


@pytest.mark.parametrize("regrowth", [True, False])
def test_what_cannot_be_prepared_is_left_as_it_was(regrowth: bool) -> None:
    model = net()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    config = MagnitudePrunerConfig.uniform(0.5)
    config.allow_regrowth = regrowth
    spec = PruningSpec(pruning_algo="taylor")  # which has no gradient to go by
    config.set_module_name("2", ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}))
    with pytest.raises(PruningError, match=r"2\.weight"):
        MagnitudePruner(model, config).prepare()
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("regrowth", [True, False])
@pytest.mark.parametrize("algo", ["default", "taylor"])
def test_a_model_that_is_gone_leaves_no_weight_behind(regrowth: bool, algo: str) -> None:
    config = MagnitudePrunerConfig.uniform(0.5, RAMP)
    assert config.global_config is not None
    config.global_config.op_state_spec = {"*": PruningSpec(pruning_algo=algo)}
    config.allow_regrowth = regrowth
    pruner = MagnitudePruner(net(), config)
    model = pruner.prepare()
    optimizer = torch.optim.AdamW(model.parameters())
    pruner.mask_optimizer_state(optimizer)
    for _ in range(3):
        model(torch.rand(3, 7)).sum().backward()
        optimizer.step()
        pruner.step()
    gone = [weakref.ref(each) for name in "02" for each in (original(model, name), impl(model))]
    del pruner, model, optimizer
    gc.collect()
    assert [each() for each in gone] == [None] * 4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_passes_without_end_take_no_more_memory(mode: Any) -> None:
    _, model = prepared()
    batch = torch.rand(3, 7)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    with mode():
        model(batch)
        before = tensors()
        for _ in range(5):
            model(batch)
            others = {name: nn.Parameter(each + 1) for name, each in model.named_parameters()}
            torch.func.functional_call(model, others, (batch,))
            del others
        assert tensors() == before
