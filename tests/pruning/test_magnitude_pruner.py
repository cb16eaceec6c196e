"""The pruner: what prepare and step do to a model."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    ModuleMagnitudePrunerConfig,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.spec import PruneImplBase, PruningScheme, PruningSpec
from tests.helpers.pruning import RAMP, impl, net, original, prepared, zeros

GAPS = PolynomialDecaySchedule(total_iters=10, begin_step=2, update_frequency=3)


def module_config(target: float, schedule: Any = None) -> ModuleMagnitudePrunerConfig:
    spec = PruningSpec(target_sparsity=target)
    return ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=schedule)


def test_prepare_puts_a_parametrization_before_the_same_parameter() -> None:
    model = net()
    weight, dense = model[0].weight, model[0].weight.detach().clone()
    assert MagnitudePruner(model).prepare() is model
    assert isinstance(impl(model), PruneImplBase)
    assert original(model) is weight
    assert torch.equal(weight, dense)
    assert torch.equal(model[0].weight, dense * impl(model).mask)


def test_no_config_halves_every_weight_by_magnitude() -> None:
    model = MagnitudePruner(net()).prepare()
    assert zeros(model) == [31, 22]
    dense, mask = original(model).detach().abs(), impl(model).mask
    assert dense[~mask].max() < dense[mask].min()


def test_without_a_schedule_a_step_changes_nothing() -> None:
    pruner, model = prepared(0.9)
    mask = impl(model).mask.clone()
    with torch.no_grad():
        original(model).copy_(original(model).flip(0))
    pruner.step(5)
    assert (pruner.step_count, zeros(model)) == (5, [56, 40])
    assert torch.equal(impl(model).mask, mask)


def test_step_0_of_a_schedule_is_applied_by_prepare() -> None:
    assert zeros(prepared(0.5, ConstantSparsitySchedule())[1]) == [31, 22]
    assert zeros(prepared(0.5, ConstantSparsitySchedule(begin_step=1))[1]) == [0, 0]
    assert zeros(prepared(0.5, RAMP)[1]) == [0, 0]
    started = RAMP.model_copy(update={"initial_sparsity": 0.25, "begin_step": 3})
    assert zeros(prepared(0.5, started)[1]) == [15, 11]


def test_zeros_are_exact_along_a_ramp() -> None:
    pruner, model = prepared(0.5, RAMP)
    seen = [zeros(model)]
    for _ in range(7):
        pruner.step()
        seen.append(zeros(model))
    # Of 63 and 45: floor of a tenth, two, three, four tenths, then half.
    assert seen == [[0, 0], [6, 4], [12, 9], [18, 13], [25, 18], [31, 22], [31, 22], [31, 22]]
    assert pruner.step_count == 7


@pytest.mark.parametrize("schedule", [RAMP, GAPS, ConstantSparsitySchedule(begin_step=4)])
@pytest.mark.parametrize("count", range(0, 15))
def test_several_steps_at_once_equal_single_ones(schedule: Any, count: int) -> None:
    torch.manual_seed(1)
    one, single = prepared(0.5, schedule)
    torch.manual_seed(1)
    other, at_once = prepared(0.5, schedule)
    for _ in range(count):
        one.step()
    other.step(count=count)
    assert one.step_count == other.step_count == count
    assert impl(single).sparsity == impl(at_once).sparsity
    assert all(torch.equal(a, b) for a, b in zip(single.buffers(), at_once.buffers(), strict=True))


def test_a_pruned_weight_comes_back_when_a_later_mask_picks_it() -> None:
    pruner, model = prepared(0.5, RAMP)
    pruner.step()
    row, column = (~impl(model).mask).nonzero()[0].tolist()
    with torch.no_grad():
        original(model)[row, column] = 9.0
    assert model[0].weight[row, column] == 0
    pruner.step()
    assert model[0].weight[row, column] == 9.0
    assert zeros(model) == [12, 9]


def test_an_infinite_weight_that_is_pruned_becomes_zero() -> None:
    _, model = prepared(1.0)
    with torch.no_grad():
        original(model).fill_(torch.inf)
    assert zeros(model) == [63, 45]


def test_at_target_is_true_once_every_mask_is_there() -> None:
    late = {"2": module_config(0.9, ConstantSparsitySchedule(begin_step=8))}
    config = MagnitudePrunerConfig(global_config=module_config(0.5, RAMP), module_name_configs=late)
    pruner = MagnitudePruner(net(), config)
    pruner.prepare()
    reached = []
    for _ in range(8):
        reached.append(pruner.at_target())
        pruner.step()
    assert (reached, pruner.at_target()) == ([False] * 8, True)
    assert prepared(0.5)[0].at_target()


def test_masks_are_made_without_a_look_at_a_value() -> None:
    # A tensor on the meta device has no values: whatever copies one to the host raises. Only the
    # look for NaN does, and it leaves such tensors out.
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(7, 9), nn.Conv2d(2, 3, 3), nn.MultiheadAttention(6, 2))
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5, RAMP))
    pruner.prepare()
    for _ in range(6):
        pruner.step()
    assert (impl(model).mask.device.type, impl(model).sparsity) == ("meta", 0.5)
    assert pruner.at_target()


class Smallest(PruneImplBase):
    """Keeps what is small."""

    def score(self, weight: Tensor) -> Tensor:
        return -weight.abs()


class EveryOther(PruneImplBase):
    """Looks at neither the weight nor the sparsity; its mask is of numbers."""

    @staticmethod
    def compute_mask(weight: Tensor, sparsity: float, pruning_scheme: PruningScheme) -> Tensor:
        assert pruning_scheme == PruningSpec().pruning_scheme
        return (torch.arange(weight.numel()) % 2).float().view_as(weight)


def with_algo(algo: type[PruneImplBase]) -> nn.Module:
    spec = PruningSpec(target_sparsity=0.5, pruning_algo=algo)
    everything = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec})
    return MagnitudePruner(net(), MagnitudePrunerConfig(global_config=everything)).prepare()


@pytest.mark.parametrize("base", [PruneImplBase, Smallest])
def test_a_criterion_may_override_only_compute_mask(base: type[PruneImplBase]) -> None:
    model = with_algo(type("Own", (base,), {"compute_mask": EveryOther.__dict__["compute_mask"]}))
    assert impl(model).mask.dtype == torch.bool
    assert impl(model).mask.flatten().tolist() == [index % 2 == 1 for index in range(63)]


def test_a_criterion_that_overrides_neither_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Neither overrides neither score nor"):
        with_algo(type("Neither", (PruneImplBase,), {}))
