"""Averages, files and counts of a model whose masks lie beside it, and its end."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePruner,
    count_sparsity,
    load_pruned,
    save_pruned,
    summary,
    to_semi_structured,
)
from coreai_opt.pruning.errors import DivergedWeightError, PruningError
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import NMStructured
from tests.helpers.pruning.in_place import (
    INPUTS,
    RAMP,
    Cyclic,
    assert_masked,
    config,
    loss_of,
    masks,
    net,
    prepared,
    stepped,
)


def zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


def trained(**fields: Any) -> tuple[InPlacePruner, Any, SGD]:
    pruner, model = prepared(schedule=RAMP, **fields)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=8)
    return pruner, model, optimizer


class ZippedAverage:
    """An average of many apps: it zips the parameters of two models."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)


@pytest.mark.parametrize("compiled", [False, True])
def test_averages_are_masked(compiled: bool) -> None:
    pruner, model = prepared(schedule=Cyclic())
    whole: Any = torch.compile(model, backend="eager") if compiled else model
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    averages = [
        AveragedModel(whole, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
        AveragedModel(whole, use_buffers=True),
        AveragedModel(model),
    ]
    zipped = ZippedAverage(model)
    for _ in range(8):
        stepped(pruner, model, optimizer)
        for average in averages:
            average.update_parameters(whole)
        zipped.update(model)
        for there in [*averages, zipped.model]:
            pruner.mask_copy(there)
            weights = dict(there.named_parameters())
            for name, kept in masks(pruner).items():
                (found,) = [value for key, value in weights.items() if key.endswith(name)]
                assert not found.detach()[~kept].any()
                assert found.detach()[kept].all()


def test_a_part_of_a_model_and_its_average_under_a_prefix() -> None:
    pruner, model, _ = trained()
    average = nn.ModuleDict({"module": copy.deepcopy(model)})
    with torch.no_grad():
        average["module"][0].weight.fill_(1.0)
    pruner.mask_copy(average)
    assert zeros(average["module"][0].weight) == 64


@pytest.mark.parametrize("other", [nn.Linear(8, 16), nn.Sequential(nn.Linear(8, 15))])
def test_what_is_no_copy_is_refused_and_left_alone(other: nn.Module) -> None:
    pruner, _, _ = trained()
    before = [value.clone() for value in other.parameters()]
    with pytest.raises(PruningError, match=r"there is no weight '0.weight' of shape"):
        pruner.mask_copy(other)
    assert all(map(torch.equal, before, other.parameters()))


def test_files_and_counts_of_a_model_with_masks_beside_it(tmp_path: Path) -> None:
    pruner, model, optimizer = trained()
    save_pruned(model, tmp_path / "beside", INPUTS)
    twin = net()
    other = MagnitudePruner(twin, config(0.5, RAMP))
    other.prepare()
    other.step(8)
    report, amounts = count_sparsity(model), summary(model, INPUTS)
    assert report.achieved == report.scheduled == report.target == 0.5
    theirs = summary(twin, INPUTS)
    assert str(amounts).splitlines()[0] == str(theirs).splitlines()[0]
    assert count_sparsity(twin).target == report.target
    kept = masks(pruner)
    stepped(pruner, model, optimizer)  # saving has not disturbed the training
    assert_masked(pruner)

    loaded = load_pruned(net(1), tmp_path / "beside")
    assert isinstance(loaded, MagnitudePruner)
    for tensor in pruned_tensors(loaded.model):
        assert torch.equal(tensor.impl.mask, kept[tensor.name])
    final = loaded.finalize()
    assert zeros(final.get_parameter("0.weight")) == 64


def test_a_model_in_mid_ramp_is_saved_with_what_it_has(tmp_path: Path) -> None:
    pruner, model = prepared(schedule=RAMP)
    pruner.step(3)
    save_pruned(model, tmp_path)
    loaded = load_pruned(net(1), tmp_path).model
    assert count_sparsity(loaded).scheduled == pytest.approx(0.5 * 3 / 5)


def test_two_of_four_beside_a_model_is_asked_for_as_in_a_plain_one() -> None:
    model = nn.Sequential(nn.Linear(64, 32))
    pruner = InPlacePruner(model, config(scheme=NMStructured(n=2, m=4)))
    pruner.prepare()
    before = to_semi_structured(model)
    pruner.finalize()
    assert to_semi_structured(model) == before
    assert "mask" not in str(before["0"])


def test_after_finalize_nothing_holds_the_weights_and_prepare_begins_anew() -> None:
    pruner, model, optimizer = trained()
    update_count = pruner.update_count
    assert pruner.finalize() is model
    assert zeros(model[0].weight) == 64
    for call in (pruner.step, pruner.state_dict, pruner.mask_weights, pruner.finalize):
        with pytest.raises(RuntimeError, match="must be prepared"):
            call()
    with pytest.raises(RuntimeError, match="must be prepared"):
        pruner.attach(optimizer)
    loss_of(model).backward()
    optimizer.step()
    optimizer.zero_grad()
    assert zeros(model[0].weight) < 64
    pruner.prepare()
    assert pruner.step_count == 0
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=8)
    assert_masked(pruner)
    assert pruner.at_target()
    assert pruner.update_count > update_count


def test_a_model_that_was_finalized_by_one_goes_on_with_the_other() -> None:
    pruner, model, _ = trained()
    pruner.finalize()
    other = MagnitudePruner(model, config(0.5))
    other.prepare()
    other.finalize()
    assert zeros(model[0].weight) == 64
    again, _ = prepared(model)
    assert again.at_target()


def test_a_model_that_has_diverged_is_not_finalized() -> None:
    pruner, model, _ = trained()
    with torch.no_grad():
        kept = masks(pruner)["0.weight"]
        model[0].weight[kept] = torch.nan
    with pytest.raises(DivergedWeightError, match=r"0\.weight"):
        pruner.finalize()
    assert any(pruned_tensors(model))


def test_a_pruner_is_copied_before_it_is_prepared_alone() -> None:
    pruner = InPlacePruner(net(), config(0.5))
    again = copy.deepcopy(pruner)
    again.prepare()
    assert zeros(again.model.get_parameter("0.weight")) == 64
    assert zeros(pruner.model.get_parameter("0.weight")) == 0
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="allowed: prepare"):
            copied(again)  # type: ignore[operator]
    copied_model = copy.deepcopy(again.model)
    other = InPlacePruner(copied_model, config(0.5))
    other.prepare(state_dict=again.state_dict())
    assert masks(other).keys() == masks(again).keys()
    assert all(torch.equal(masks(other)[name], mask) for name, mask in masks(again).items())
