"""Averages and copies that are finalized in place of the model: their zeros are counted."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import MissingZerosWarning


def pruner_of(model: nn.Module) -> MagnitudePruner:
    ramp = PolynomialDecaySchedule(total_iters=4, power=1)
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.75, ramp))
    pruner.prepare()
    return pruner


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))


@torch.no_grad()
def train(pruner: MagnitudePruner, average: Any) -> None:
    for _ in range(6):
        for parameter in pruner.model.parameters():
            parameter += torch.randn_like(parameter) / 10
        pruner.step()
        if isinstance(average, AveragedModel):
            average.update_parameters(pruner.model)
            continue
        for old, new in zip(average.parameters(), pruner.model.parameters(), strict=True):
            old.lerp_(new, 0.1)


def averaged(model: nn.Module, **settings: Any) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), **settings)


def test_an_average_without_the_masks_is_told_with_its_zeros() -> None:
    pruner = pruner_of(net())
    average = copy.deepcopy(pruner.model)
    train(pruner, average)
    with pytest.warns(MissingZerosWarning, match=r"0 zeros .* prune 60.*2 weights") as told:
        pruner.finalize(average)
    assert told[0].message.missing == {"0.weight": (0, 48), "1.weight": (0, 12)}  # type: ignore[union-attr]


def test_the_order_of_model_and_average_does_not_matter() -> None:
    pruner = pruner_of(net())
    average = copy.deepcopy(pruner.model)
    train(pruner, average)
    pruner.finalize()
    with pytest.warns(MissingZerosWarning) as told:
        pruner.finalize(average)
    assert told[0].message.missing == {"0.weight": (0, 48), "1.weight": (0, 12)}  # type: ignore[union-attr]


def test_an_average_of_a_part_of_the_model_is_told() -> None:
    whole = nn.ModuleDict({"net": net(), "other": nn.Linear(8, 8)})
    pruner = pruner_of(whole)
    average = copy.deepcopy(whole["net"])
    for _ in range(4):
        pruner.step()
    with pytest.warns(MissingZerosWarning) as told:
        pruner.finalize(average)
    assert set(told[0].message.missing) == {"net.0.weight", "net.1.weight"}  # type: ignore[union-attr]


@pytest.mark.parametrize("whole", [True, False])
def test_an_average_of_the_masks_is_told(whole: bool) -> None:
    pruner = pruner_of(net())
    average = averaged(pruner.model, use_buffers=True)
    train(pruner, average)
    with pytest.warns(MissingZerosWarning) as told:
        pruner.finalize(average if whole else average.module)
    assert all(zeros < pruned for zeros, pruned in told[0].message.missing.values())  # type: ignore[union-attr]


def test_an_average_that_copies_the_masks_is_as_sparse_as_the_model() -> None:
    pruner = pruner_of(net())
    average = averaged(pruner.model)
    train(pruner, average)
    final = pruner.finalize(average.module)
    assert int((final[0].weight == 0).sum()) == 48  # type: ignore[index]


def test_what_the_warning_advises_is_right() -> None:
    pruner = pruner_of(net())
    average = copy.deepcopy(pruner.model)
    train(pruner, average)
    with torch.no_grad():
        for own, other in zip(pruner.model.parameters(), average.parameters(), strict=True):
            own.copy_(other)
    final = pruner.finalize()
    assert int((final[0].weight == 0).sum()) == 48  # type: ignore[index]
    kept = final[0].weight != 0  # type: ignore[index]
    dense = average[0].parametrizations.weight.original
    assert torch.equal(final[0].weight[kept], dense[kept])  # type: ignore[index]


def test_a_copy_as_sparse_as_the_model_says_nothing() -> None:
    pruner = pruner_of(net())
    pruner.step(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finalize(copy.deepcopy(pruner.model))
        other = pruner_of(nn.Sequential(nn.Linear(3, 3))).model
        pruner.finalize(other)  # another model altogether
        pruner.finalize()
