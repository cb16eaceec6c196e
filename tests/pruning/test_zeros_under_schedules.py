"""Zeros that are there under schedules and in patterns: what begins with them has no fewer."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from coreai_opt.pruning import count_sparsity
from coreai_opt.pruning.config import ConstantSparsitySchedule, PolynomialDecaySchedule
from coreai_opt.pruning.in_place.starting import TooFewZerosError
from coreai_opt.pruning.spec import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    PruneImplBase,
    Unstructured,
)
from tests.helpers.pruning import asking
from tests.helpers.pruning.in_place import CountingImpl
from tests.helpers.pruning.sparse_starts import RAMP, counts, net, started, train, zeros_of

WHOLE = ChannelStructured(axis=0)


@pytest.mark.parametrize(
    ("allocation", "regrowth", "algo"),
    [("uniform", True, "default"), ("global", False, "default"), ("erdos_renyi", True, "random")],
)
def test_a_schedule_goes_on_from_the_zeros(allocation: str, regrowth: bool, algo: str) -> None:
    model = net(0.25, 0.5, 0.0)
    config = asking(RAMP, target_sparsity=0.75, pruning_algo=algo).model_copy(
        update={"allocation": allocation, "allow_regrowth": regrowth}
    )
    there, before = zeros_of(model), copy.deepcopy(model.state_dict())
    pruner, optimizer = started(model, config)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    totals = [sum(counts(model))]
    for _ in range(10):
        train(pruner, optimizer, 1)
        now = zeros_of(model)
        assert all(bool(now[name][zeros].all()) for name, zeros in there.items())
        totals.append(sum(counts(model)))
    assert totals[0] == 48
    assert totals[-1] == 144
    assert totals == sorted(totals)
    if allocation == "uniform":
        assert counts(model) == [48, 48, 48]
    assert pruner.at_target()


def test_each_layer_begins_where_it_stands() -> None:
    model = net(0.25, 0.5, 0.9)
    pruner, optimizer = started(model, asking(RAMP, target_sparsity=0.75))
    curve = []
    for _ in range(8):
        train(pruner, optimizer, 1)
        curve.append(counts(model))
    # 6 more of 64 at each step, and none less than there are.
    assert [at[0] for at in curve] == [16, 16, 18, 24, 30, 36, 42, 48]
    assert [at[1] for at in curve] == [32, 32, 32, 32, 32, 36, 42, 48]
    assert [at[2] for at in curve] == [58] * 8
    assert pruner.at_target()
    assert [layer.target for layer in count_sparsity(model).layers] == [0.75, 0.75, 58 / 64]


def test_what_the_ramp_prunes_may_come_back_and_the_zeros_may_not() -> None:
    class UpAndDown:
        def compute_sparsity(self, step_count: int, target_sparsity: float) -> float:
            return target_sparsity if step_count % 2 else 0.0

    model = net(0.25)
    there = zeros_of(model)["0.weight"]
    pruner, optimizer = started(model, asking(UpAndDown(), target_sparsity=0.5))
    dense = model[0].weight.detach().clone()
    pruner.step()
    assert counts(model) == [32]
    pruner.step()
    assert torch.equal(model[0].weight, dense)
    assert torch.equal(model[0].weight == 0, there)
    assert count_sparsity(model).regrown == 16
    train(pruner, optimizer, 4)
    assert torch.equal(model[0].weight == 0, there)
    assert not optimizer.state[model[0].weight]["momentum_buffer"][there].any()


def test_weights_that_are_loaded_bring_no_zero_back() -> None:
    model = net(0.25)
    there = zeros_of(model)["0.weight"]
    pruner, _ = started(model, asking(RAMP, target_sparsity=0.5))
    model.load_state_dict({"0.weight": 1.0 + there, "0.bias": torch.zeros(8)})
    pruner.step(8)
    assert counts(model) == [32]
    assert (model[0].weight == 0)[there].all()


def test_a_schedule_that_begins_above_prunes_at_once() -> None:
    model = net(0.25, 0.75)
    started(model, asking(ConstantSparsitySchedule(), target_sparsity=0.5))
    assert counts(model) == [32, 48]


def in_pattern(scheme: Any, share: float) -> nn.Sequential:
    model = net(0.0)
    with torch.no_grad():
        mask = PruneImplBase.get_class("default").compute_mask(model[0].weight, share, scheme)
        model[0].weight *= mask
    return model


PATTERNS = [
    NMStructured(n=2, m=4),
    NMStructured(n=1, m=4, axis=0),
    WHOLE,
    ChannelStructured(axis=1),
    BlockStructured(block_shape=(2, 4)),
    Unstructured(),
]


@pytest.mark.parametrize("scheme", PATTERNS, ids=str)
def test_zeros_in_the_pattern_are_kept(scheme: Any) -> None:
    target = scheme.target_for(0.5)
    model = in_pattern(scheme, target)
    there = zeros_of(model)["0.weight"]
    pruner, optimizer = started(model, asking(pruning_scheme=scheme, target_sparsity=target))
    train(pruner, optimizer, 3)
    assert torch.equal(model[0].weight == 0, there)
    assert pruner.at_target()
    assert [layer.target for layer in count_sparsity(model).layers] == [target]


@pytest.mark.parametrize("scheme", PATTERNS[:-1], ids=str)
def test_zeros_in_another_pattern_are_refused_by_name(scheme: Any) -> None:
    config = asking(pruning_scheme=scheme)  # a pattern asks for its target, said or not
    kind = scheme.model_dump()["type"]
    model = net(0.0)
    with torch.no_grad():  # no row, no column, and three blocks of eight are zero
        kept = torch.eye(8, dtype=torch.bool)
        kept[:3, :3] = kept[0, 7] = True
        model[0].weight *= kept
    with pytest.raises(
        TooFewZerosError, match=rf"'0.weight': 49 zeros .*, in the pattern .*'type': '{kind}'"
    ):
        started(model, config)


@pytest.mark.parametrize("scheme", PATTERNS, ids=str)
@pytest.mark.parametrize(
    ("algo", "regrowth", "start"),
    [("default", True, 0.3), ("default", False, "pattern"), ("random", False, 0.3)],
)
def test_a_schedule_takes_any_zeros_into_the_pattern(
    scheme: Any, algo: Any, regrowth: bool, start: Any
) -> None:
    model = in_pattern(scheme, 0.25) if start == "pattern" else net(start)
    there = zeros_of(model)["0.weight"]
    target = scheme.target_for(0.5)
    config = asking(RAMP, pruning_scheme=scheme, target_sparsity=target, pruning_algo=algo)
    pruner, optimizer = started(model, config.model_copy(update={"allow_regrowth": regrowth}))
    for _ in range(9):
        train(pruner, optimizer, 1)
        assert (model[0].weight == 0)[there].all()
    assert pruner.at_target()
    final = model[0].weight.detach()
    pattern = PruneImplBase.get_class("default").compute_mask(final, target, scheme)
    assert not final[~pattern].any()
    if start == "pattern" and algo == "default":
        assert counts(model) == [scheme.pruned_elements((8, 8), target)]


def test_a_criterion_without_scores_keeps_the_zeros() -> None:
    model = net(0.3)
    there = zeros_of(model)["0.weight"]
    pruner, optimizer = started(model, asking(RAMP, target_sparsity=0.5, pruning_algo=CountingImpl))
    train(pruner, optimizer, 9)
    assert (model[0].weight == 0)[there].all()
    assert not model[0].weight[:4].any()


def test_more_zeros_than_a_pattern_asks_for_stay() -> None:
    model = in_pattern(NMStructured(n=2, m=4), 0.5)
    with torch.no_grad():
        model[0].weight[0] = 0
    pruner, optimizer = started(model, asking(pruning_scheme=NMStructured(n=2, m=4)))
    assert pruner.at_target()
    train(pruner, optimizer, 2)
    assert counts(model) == [36]
    stray = in_pattern(WHOLE, 0.5)
    with torch.no_grad():
        stray[0].weight[stray[0].weight.abs() < 0.2] = 0
    amount = counts(stray)
    pruner, optimizer = started(stray, asking(pruning_scheme=WHOLE))
    train(pruner, optimizer, 2)
    assert counts(stray) == amount
    assert amount[0] > 40
    assert pruner.at_target()


def test_taylor_goes_on_from_zeros_once_it_has_seen_gradients() -> None:
    model = net(0.25, 0.0)
    there = zeros_of(model)["0.weight"]
    ramp = PolynomialDecaySchedule(total_iters=4, begin_step=1, power=1)
    pruner, optimizer = started(
        model, asking(ramp, target_sparsity=0.5, pruning_algo="taylor"), momentum=0.0
    )
    train(pruner, optimizer, 6)
    assert counts(model) == [32, 32]
    assert (model[0].weight == 0)[there].all()
