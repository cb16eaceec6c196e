"""Zeros that are there are masks to begin with: kept for good, or gone on from by a schedule."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from coreai_opt.pruning import (
    InPlacePruner,
    ModuleMagnitudePrunerConfig,
    PruningError,
    count_sparsity,
    summary,
)
from coreai_opt.pruning.errors import DivergedWeightError, LeftDenseWarning, PreparationWarning
from coreai_opt.pruning.in_place.starting import AllZeroWarning, TooFewZerosError
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning import asking
from tests.helpers.pruning.in_place import uniform
from tests.helpers.pruning.models import Tied
from tests.helpers.pruning.sparse_starts import RAMP, counts, net, started, train, zeros_of


def test_zeros_are_kept_without_a_schedule_and_everything_else_is_trained() -> None:
    model = net(0.5, 0.6)
    before, there = copy.deepcopy(model.state_dict()), zeros_of(model)
    pruner, optimizer = started(model, asking(target_sparsity=0.5))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert pruner.at_target()
    train(pruner, optimizer, 5)
    assert pruner.update_count == 0
    assert all(torch.equal(there[name], zeros) for name, zeros in zeros_of(model).items())
    assert not (model[0].bias == 0).any()  # biases are no targets
    report = count_sparsity(model)
    # The second layer has more than it was asked for: that is where it stands.
    assert [layer.target for layer in report.layers] == [0.5, 38 / 64]
    assert [layer.scheduled for layer in report.layers] == [0.5, 38 / 64]
    assert [layer.nonzero for layer in report.layers] == [32, 26]
    assert report.regrown == 0
    assert pruner.at_target()
    assert summary(model).weights.nonzero == 58
    pruner.finalize()
    assert counts(model) == [32, 38]


def test_nothing_asked_keeps_what_is_there() -> None:
    model = net(0.3, 0.0, 0.7)
    pruner, optimizer = started(model)
    train(pruner, optimizer, 3)
    assert counts(model) == [19, 0, 45]
    assert pruner.at_target()
    assert [layer.target for layer in count_sparsity(model).layers] == [19 / 64, 0.0, 45 / 64]


def test_no_zeros_at_all_need_a_schedule() -> None:
    with pytest.raises(PruningError, match=r"no zero in the weights .* allowed: sparse"):
        started(net(0.0, 0.0))
    model = net(0.0, 0.0)
    with pytest.warns(PreparationWarning, match=r"no zero in the weights .*: the schedule makes"):
        pruner, optimizer = started(model, asking(RAMP, target_sparsity=0.5))
    train(pruner, optimizer, 9)
    assert counts(model) == [32, 32]


def test_too_few_zeros_are_refused_by_name_and_leave_the_model_alone() -> None:
    model = net(0.4, 0.5, 0.1, 0.2, 0.3)
    pruner = InPlacePruner(model, asking(target_sparsity=0.5))
    with pytest.raises(TooFewZerosError) as caught:
        pruner.prepare(masks_from="zeros")
    text = str(caught.value)
    assert "'0.weight': 26 zeros of 64 (40.62%), asked 32 (50.00%); '2.weight': 6 zeros" in text
    assert "'4.weight'" not in text
    assert "and 1 more; allowed: a sparsity_schedule" in text
    assert [one.names for one in caught.value.lacking] == [(f"{at}.weight",) for at in (0, 2, 3, 4)]
    assert not any(pruned_tensors(model))
    pruner.prepare()  # by the schedules: none is at once
    assert counts(model) == [32] * 5


@pytest.mark.parametrize("allocation", ["global", "erdos_renyi"])
def test_several_layers_together_may_share_a_target(allocation: str) -> None:
    model = net(0.25, 0.75)
    config = uniform(0.5, None, allocation=allocation)
    pruner, optimizer = started(model, config)
    assert pruner.at_target()
    train(pruner, optimizer, 3)
    assert counts(model) == [16, 48]
    assert count_sparsity(model).target == pytest.approx(0.5)
    with pytest.raises(TooFewZerosError, match=r"'0.weight', '1.weight' together: 63 zeros of 128"):
        started(net(0.25, 47 / 64), uniform(0.5, None, allocation=allocation))


@pytest.mark.parametrize("schedule", [None, RAMP])
@pytest.mark.parametrize(
    ("allocation", "regrowth", "stop"),
    [("uniform", True, 0), ("global", False, 4), ("erdos_renyi", True, 4)],
)
def test_a_state_goes_on_as_if_nothing_had_happened(
    schedule: Any, allocation: str, regrowth: bool, stop: int, tmp_path: Path
) -> None:
    model = net(0.6, 0.7) if schedule is None else net(0.5, 0.7)
    config = uniform(0.6, schedule, allocation=allocation, allow_regrowth=regrowth)
    pruner, optimizer = started(model, config)
    train(pruner, optimizer, stop)
    torch.save([pruner.state_dict(), model.state_dict(), optimizer.state_dict()], tmp_path / "s.pt")
    masks, weights, moments = torch.load(tmp_path / "s.pt", weights_only=True)
    train(pruner, optimizer, 11 - stop)

    again = net(0.0, 0.0)
    again.load_state_dict(weights)
    resumed = InPlacePruner(again, config)
    # What is asked of a start does not matter where a state is given.
    resumed.prepare(state_dict=masks, masks_from="zeros" if stop else "schedule")
    its_own = SGD(again.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    its_own.load_state_dict(moments)
    resumed.attach(its_own)
    train(resumed, its_own, 11 - stop)
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert count_sparsity(model) == count_sparsity(again)
    assert resumed.at_target()
    assert pruner.at_target()


def test_a_layer_that_is_zero_throughout_stays_so_and_is_named() -> None:
    model = net(0.5, 1.0, 0.5)
    pruner = InPlacePruner(model, asking(target_sparsity=0.5))
    with pytest.warns(AllZeroWarning, match=r"'1.weight'; one that is to be trained .* left out"):
        pruner.prepare(masks_from="zeros")
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    train(pruner, optimizer, 2)
    assert counts(model) == [32, 64, 32]
    left_out = asking(target_sparsity=0.5).set_module_name("1", None)
    started(net(0.5, 1.0, 0.5), left_out)


@pytest.mark.parametrize("schedule", [None, RAMP])
def test_a_weight_that_has_diverged_is_named(schedule: Any) -> None:
    model = net(0.5, 0.5)
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(DivergedWeightError, match=r"NaN in '1.weight'"):
        started(model, asking(schedule, target_sparsity=0.25))
    assert not any(pruned_tensors(model))


def test_a_tied_weight_is_one() -> None:
    model = Tied()
    with torch.no_grad():
        for layer in (model.first, model.between):
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0
    there = model.first.weight == 0
    pruner = InPlacePruner(model, asking(target_sparsity=0.4))
    pruner.prepare(masks_from="zeros")
    optimizer = AdamW(model.parameters(), 0.1)
    pruner.attach(optimizer)
    model(model.batch()).square().sum().backward()
    optimizer.step()
    assert model.second.weight is model.first.weight
    assert torch.equal(model.second.weight == 0, there)
    assert len(list(pruned_tensors(model))) == 2


def test_frozen_weights_are_left_alone_unless_they_are_named() -> None:
    model = net(0.5, 0.1)
    model[1].requires_grad_(False)
    with pytest.warns(LeftDenseWarning, match="frozen"):
        started(model, asking(target_sparsity=0.5))
    assert [tensor.name for tensor in pruned_tensors(model)] == ["0.weight"]
    named = net(0.5, 0.1)
    named[1].requires_grad_(False)
    config = asking(target_sparsity=0.5)
    config.set_module_name("1", config.global_config)
    with pytest.raises(TooFewZerosError, match=r"'1.weight': 6 zeros"):
        started(named, config)


def test_what_is_asked_for_nothing_is_kept_beside_what_is_checked() -> None:
    model = net(0.5, 0.0)
    config = asking(target_sparsity=0.5).set_module_name("1", ModuleMagnitudePrunerConfig())
    pruner, optimizer = started(model, config)
    train(pruner, optimizer, 2)
    assert counts(model) == [32, 0]


def test_negative_zeros_are_zeros() -> None:
    model = net(0.5)
    with torch.no_grad():
        model[0].weight[model[0].weight == 0] = -0.0
    started(model, asking(target_sparsity=0.5))
    assert counts(model) == [32]
    assert not model[0].weight[model[0].weight == 0].signbit().any()


def test_weights_without_values_are_refused() -> None:
    with pytest.raises(PruningError, match=r"'0.weight' is on the meta device"):
        started(nn.Sequential(nn.Linear(4, 4, device="meta")))


def test_another_start_is_refused() -> None:
    with pytest.raises(ValueError, match="masks_from is 'ones'; allowed: 'schedule', 'zeros'"):
        InPlacePruner(net(0.5)).prepare(masks_from="ones")  # type: ignore[arg-type]
