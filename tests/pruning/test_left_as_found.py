"""What goes wrong, or only looks, leaves model, pruner and optimizer as they were."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity, summary
from coreai_opt.pruning.config import ConstantSparsitySchedule, ModuleMagnitudePrunerConfig
from coreai_opt.pruning.model.operations import trace_forward
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruningSpec, TaylorPruneImpl
from tests.helpers.pruning import RAMP, impl, net, original, prepared, zeros

pytestmark = pytest.mark.usefixtures("any_size")


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("inputs", [None, torch.ones(2, 4)], ids=["counted", "followed"])
def test_a_look_does_not_invalidate_a_graph_that_waits(inputs: Any) -> None:
    model = normed()
    MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5, RAMP)).prepare()
    loss = model(torch.rand(3, 4)).sum()
    summary(model, inputs)
    loss.backward()


def test_buffers_that_cannot_be_written_are_no_obstacle() -> None:
    model = normed()
    model.register_buffer("wide", torch.ones(1).expand(5))
    kept = model.wide
    trace_forward(model, torch.ones(2, 4))
    assert model.wide is kept
    with torch.inference_mode():
        made_there = normed()
    summary(made_there, torch.ones(2, 4))


class Awkward(nn.Module):
    """Its second weight is of integers, which torch parametrizes, if its dtype is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        numbers = torch.arange(16).reshape(4, 4)
        self.second.weight = nn.Parameter(numbers, requires_grad=False)


def test_weights_of_integers_are_pruned() -> None:
    model = Awkward()
    # They cannot be trained, and are frozen where others are.
    named = MagnitudePrunerConfig(module_name_configs={"second": ModuleMagnitudePrunerConfig()})
    MagnitudePruner(model, named).prepare()
    assert model.second.weight.flatten().tolist() == [0] * 8 + list(range(8, 16))


def test_a_weight_that_torch_refuses_leaves_no_mask_behind() -> None:
    model = net()
    with torch.inference_mode():
        model[2].weight = nn.Parameter(torch.ones(5, 9))
    before = list(model.state_dict())
    pruner = MagnitudePruner(model)
    with pytest.raises(RuntimeError, match=r"[Ii]nference"):
        pruner.prepare()
    assert not any(pruned_tensors(model))
    assert list(model.state_dict()) == before
    config = MagnitudePrunerConfig(module_name_configs={"2": None})
    assert len(list(pruned_tensors(MagnitudePruner(model, config).prepare()))) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_scripted_parts_are_passed_over_and_no_hook_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.ReLU()))
    MagnitudePruner(model).prepare(torch.ones(1, 4))
    assert float((model[0].weight == 0).float().mean()) == 0.5
    assert not model._forward_pre_hooks
    assert not model[0]._forward_pre_hooks


def test_finalizing_the_own_model_by_name_ends_the_pruner_too() -> None:
    pruner, model = prepared(schedule=RAMP)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner.mask_optimizer_state(optimizer)
    pruner.step(6)
    assert pruner.finalize(model) is model
    with pytest.raises(RuntimeError, match="must be prepared"):
        pruner.step()
    model(torch.rand(3, 7)).sum().backward()
    optimizer.step()
    assert not optimizer._optimizer_step_pre_hooks


def test_an_optimizer_outlives_masks_that_were_folded_elsewhere() -> None:
    pruner, model = prepared(schedule=RAMP)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner.mask_optimizer_state(optimizer)
    pruner.step(6)
    MagnitudePruner(nn.Linear(2, 2)).finalize(model)
    model(torch.rand(3, 7)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("whole", [True, False], ids=["root", "child"])
def test_a_compiled_module_is_pruned_inside(whole: bool) -> None:
    compiled: Any = torch.compile(nn.Linear(4, 4), backend="eager")
    model = compiled if whole else nn.Sequential(compiled, nn.Linear(4, 4))
    keys = list(model.state_dict())
    pruner = MagnitudePruner(model)
    pruner.prepare()
    names = [tensor.name for tensor in pruned_tensors(model)]
    assert names == (["_orig_mod.weight"] if whole else ["0._orig_mod.weight", "1.weight"])
    assert {tensor.mask_key for tensor in pruned_tensors(model)} <= set(model.state_dict())
    pruner.finalize()
    assert list(model.state_dict()) == keys
    assert count_sparsity(model).achieved == 0.5


def test_a_penalty_on_dense_weights_does_not_move_pruned_ones() -> None:
    pruner, model = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner.mask_optimizer_state(optimizer)
    mask, before = impl(model).mask, original(model).detach().clone()
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    assert torch.equal(original(model)[~mask], before[~mask])
    assert bool((original(model)[mask] != before[mask]).all())


def test_a_mask_between_backward_and_step_protects_at_once() -> None:
    pruner, model = prepared(schedule=ConstantSparsitySchedule(begin_step=2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner.mask_optimizer_state(optimizer)
    kept: list[Tensor] = []
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.rand(3, 7)).square().sum().backward()
        pruner.step()
        kept.append(original(model).detach()[~impl(model).mask].clone())
        optimizer.step()
    assert [values.numel() for values in kept] == [0, 31, 31, 31, 31]
    assert all(torch.equal(values, kept[1]) for values in kept[2:])


def test_loaded_moments_do_not_push_pruned_weights() -> None:
    dense = net()
    trained = torch.optim.SGD(dense.parameters(), lr=0.1, momentum=0.9)
    dense(torch.rand(3, 7)).square().sum().backward()
    trained.step()
    pruner, model = prepared()
    parameters = [original(model), model[0].bias, original(model, "2"), model[2].bias]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    pruner.mask_optimizer_state(optimizer)
    optimizer.load_state_dict(trained.state_dict())
    moment = optimizer.state[original(model)]["momentum_buffer"]
    assert moment[~impl(model).mask].count_nonzero() == 0 < moment.count_nonzero()


def test_without_a_schedule_a_loaded_mask_stays() -> None:
    other, pruned = prepared(0.75)
    pruner, model = prepared(0.5)
    model.load_state_dict(pruned.state_dict())
    pruner.step()
    assert zeros(model) == zeros(pruned) == [47, 33]
    assert other.at_target()


def with_layers_apart(dense: str, steps: int) -> MagnitudePruner:
    """Load a state in which one layer was left behind at 0 into a pruner of both."""
    together = MagnitudePrunerConfig.uniform(0.5, RAMP.model_copy(update={"update_frequency": 3}))
    behind = ModuleMagnitudePrunerConfig(op_state_spec={"*": PruningSpec(target_sparsity=0.0)})
    one = MagnitudePruner(net(), together.model_copy(deep=True).set_module_name(dense, behind))
    one.prepare()
    one.step(steps)
    other = MagnitudePruner(net(), together)
    other.prepare()
    other.model.load_state_dict(one.model.state_dict())
    return other


def test_layers_that_stood_apart_keep_their_masks_in_a_gap() -> None:
    pruner = with_layers_apart("0", steps=3)
    before = zeros(pruner.model)
    pruner.step()
    assert zeros(pruner.model) == before == [0, 22]


@pytest.mark.parametrize(("dense", "before"), [("0", [0, 22]), ("2", [31, 0])])
def test_layers_that_stood_apart_meet_at_the_target(dense: str, before: list[int]) -> None:
    pruner = with_layers_apart(dense, steps=6)
    assert zeros(pruner.model) == before
    pruner.step()
    assert zeros(pruner.model) == [31, 22]


def test_a_state_that_is_mapped_to_half_precision_keeps_its_clock() -> None:
    ramp = RAMP.model_copy(update={"total_iters": 4000})
    pruner, model = prepared(schedule=ramp)
    pruner.step(3001)
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    again, copied = prepared(schedule=ramp)
    copied.load_state_dict(state)
    assert (again.step_count, impl(copied).sparsity) == (3001, impl(model).sparsity)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_sums_of_the_gradient_criterion_stay_in_float32(dtype: torch.dtype) -> None:
    spec = PruningSpec(pruning_algo="taylor")
    module = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=RAMP)
    model = MagnitudePruner(net(), MagnitudePrunerConfig(global_config=module)).prepare()
    model(torch.rand(3, 7)).square().sum().backward()
    criterion = impl(model)
    assert isinstance(criterion, TaylorPruneImpl)
    sums = criterion.importance.clone()
    model.to(dtype)
    assert torch.equal(criterion.importance, sums)
    empty = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    assert impl(empty).importance.dtype == torch.float32


def test_the_gradient_criterion_names_a_layer_without_gradients() -> None:
    spec = PruningSpec(pruning_algo="taylor")
    module = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=RAMP)
    model = net()
    model[0].requires_grad_(False)
    config = MagnitudePrunerConfig(global_config=module, module_name_configs={"0": module})
    pruner = MagnitudePruner(model, config)
    pruner.prepare()
    model(torch.rand(3, 7)).sum().backward()
    with pytest.raises(ValueError, match=r"none has reached '0\.weight' yet; .*leave others out"):
        pruner.step()


def test_masks_made_in_inference_mode_can_be_trained_under() -> None:
    model = net()
    with torch.inference_mode():
        MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5, RAMP)).prepare()
    model(torch.rand(3, 7)).sum().backward()


def test_less_sparsity_is_not_reported_where_nothing_may_come_back() -> None:
    falling = RAMP.model_copy(update={"initial_sparsity": 0.75})
    config = MagnitudePrunerConfig.uniform(0.25, falling)
    config.allow_regrowth = False
    pruner = MagnitudePruner(net(), config)
    model = pruner.prepare()
    pruner.step(6)
    assert zeros(model) == [47, 33]
    assert impl(model).sparsity == 0.75
    assert not pruner.at_target()


def test_a_model_without_values_has_no_summary() -> None:
    with pytest.raises(ValueError, match="meta device has no values to count"):
        summary(net().to("meta"))
