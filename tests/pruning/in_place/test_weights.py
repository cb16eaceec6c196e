"""Weights of all kinds, and what others do to them while they are pruned in place."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim import SGD, AdamW

from coreai_opt.pruning import InPlacePruner, MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.saving import masks_beside as beside
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


class Twice(nn.Module):
    """Tied weights, and a module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.again = self.first

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.again(self.second(self.first(inputs)))
        return result


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.RNNBase]) -> None:
        super().__init__()
        self.inside = kind(8, 6, num_layers=2, bidirectional=True)
        self.last = nn.Linear(12, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.last(self.inside(inputs.view(4, 4, 8))[0])
        return result


class Attending(nn.Module):
    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.inside = nn.MultiheadAttention(8, 2, **sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        others = inputs.repeat(1, self.inside.kdim // 8)
        result: Tensor = self.inside(inputs, others, others)[0]
        return result


MODELS: dict[str, Callable[[], nn.Module]] = {
    "tied": Twice,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attending,
    "attention of other sizes": lambda: Attending(kdim=16, vdim=16),
    "one output": lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1)),
}


@pytest.mark.parametrize("schedule", [RAMP, Cyclic()], ids=["ramp", "cyclic"])
@pytest.mark.parametrize("name", MODELS)
def test_all_kinds_of_modules(name: str, schedule: Any) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    keys = list(model.state_dict())
    pruner, _ = prepared(model, schedule=schedule)
    optimizer = AdamW(model.parameters(), 0.01, weight_decay=0.1)
    pruner.attach(optimizer)
    for _ in range(8):
        stepped(pruner, model, optimizer)
        for module in model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()
        if pruner.step_count > 1:
            assert_masked(pruner)
    # Each weight has one mask, whatever its names, and is one tensor still.
    assert len(list(pruned_tensors(model))) == len(masks(pruner))
    assert list(model.state_dict()) == keys
    if isinstance(model, Twice):
        assert model.first.weight is model.second.weight
        assert list(masks(pruner)) == ["first.weight"]
        assert len(masks(pruner)) == 1


def test_weights_that_are_assigned_in_mid_run() -> None:
    pruner, model = prepared(schedule=Cyclic())
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=2)
    kept = masks(pruner)
    other = {key: value + 1 for key, value in net(1).state_dict().items()}
    model.load_state_dict(other, assign=True)
    pruner.mask_weights()
    assert_masked(pruner)
    for name, mask in kept.items():
        assert torch.equal(model.get_parameter(name)[mask], other[name][mask])
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    pruner.attach(optimizer)
    loss_of(model).backward()
    assert_masked(pruner, gradients=True)
    optimizer.step()
    optimizer.zero_grad()
    pruner.step()
    stepped(pruner, model, optimizer, steps=4)
    assert_masked(pruner)


def test_a_weight_may_have_the_version_of_the_one_in_whose_place_it_is() -> None:
    model = nn.Linear(8, 8)
    ones = {key: torch.ones_like(value) for key, value in model.state_dict().items()}
    model.load_state_dict(ones, assign=True)
    pruner = InPlacePruner(model, MagnitudePrunerConfig.uniform(0.5))
    pruner.prepare()
    before = model.weight
    dense = {key: torch.ones_like(value) for key, value in ones.items()}
    model.load_state_dict(dense, assign=True)
    assert model.weight is not before
    assert model.weight._version == before._version
    pruner.mask_weights()
    assert int((model.weight == 0).sum()) == 32


@pytest.mark.parametrize("masks_now", [True, False], ids=["at once", "in the next step"])
def test_dense_weights_that_are_loaded_are_masked(masks_now: bool) -> None:
    pruner, model = prepared()
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer)
    model.load_state_dict(net(1).state_dict())
    if masks_now:
        pruner.mask_weights()
    else:
        stepped(pruner, model, optimizer)
    assert_masked(pruner)


@pytest.mark.parametrize("overwrites", [False, True], ids=["data", "new parameters"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_dtype_and_back_between_steps(dtype: torch.dtype, overwrites: bool) -> None:
    pruner, model = prepared(schedule=Cyclic())
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=2)
    torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
    try:
        for there in (dtype, torch.float32):
            model.to(there)
            pruner.mask_weights()
            assert_masked(pruner)
            optimizer = SGD(model.parameters(), 0.1)
            pruner.attach(optimizer)
            for _ in range(4):
                loss_of(model, INPUTS.to(there)).backward()
                if pruner.step_count % 3:
                    assert_masked(pruner, gradients=True)
                optimizer.step()
                optimizer.zero_grad()
                pruner.step()
                assert_masked(pruner)
            assert all(value.dtype is there for value in model.parameters())
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def test_a_model_without_memory_is_prepared_like_by_the_other_pruner() -> None:
    found = []
    for way in (InPlacePruner, MagnitudePruner):
        with torch.device("meta"):
            model = net()
        pruner = way(model, config(0.5, RAMP))
        pruner.prepare()
        found.append([tensor.name for tensor in pruned_tensors(model)])
        if way is InPlacePruner:
            model.to_empty(device="cpu")
            model.load_state_dict(net().state_dict())
            optimizer = SGD(model.parameters(), 0.1)
            pruner.attach(optimizer)
            stepped(pruner, model, optimizer, steps=8)
            assert_masked(pruner)
            assert pruner.at_target()
    assert found[0] == found[1]


def test_masks_of_a_model_without_memory_are_not_guessed() -> None:
    with torch.device("meta"):
        model = net()
    pruner, _ = prepared(model)
    model.to_empty(device="cpu")
    with pytest.raises(PruningError, match=r"'0\.weight' was made for a weight without memory"):
        pruner.mask_weights()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(4))


def normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)))


def masked_by_torch() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4))
    prune.l1_unstructured(model[0], "weight", 0.5)  # type: ignore[no-untyped-call]
    return model


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("make", [lazy, normed, masked_by_torch])
def test_what_the_other_pruner_refuses_is_refused(make: Callable[[], nn.Module]) -> None:
    errors = []
    for way in (InPlacePruner, MagnitudePruner):
        with pytest.raises(PruningError) as error:
            way(make()).prepare()
        errors.append((type(error.value), str(error.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("first", [InPlacePruner, MagnitudePruner])
@pytest.mark.parametrize("second", [InPlacePruner, MagnitudePruner])
def test_a_model_has_one_pruner(first: Any, second: Any) -> None:
    model = nn.Sequential(net())
    one = first(model, config())
    one.prepare()
    for part in (model, model[0], nn.Sequential(model)):
        with pytest.raises(RuntimeError, match="already been prepared"):
            second(part, config()).prepare()
    one.finalize()
    second(model, config()).prepare()


def test_nothing_is_kept_alive() -> None:
    gc.collect()
    before = len(beside._masks)
    pruner, model = prepared(schedule=RAMP, algo="taylor")
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=2)
    loss_of(model).backward()
    assert len(beside._masks) == before + 2
    weights = [weakref.ref(value) for value in model.parameters()]
    there = [weakref.ref(one) for one in (pruner, model, model[0], optimizer)]
    masks_there = [weakref.ref(tensor.impl) for tensor in pruned_tensors(model)]
    del pruner, model, optimizer
    gc.collect()
    assert [one() for one in (*weights, *there, *masks_there)] == [None] * 10
    assert len(beside._masks) == before


def test_a_pruner_whose_name_is_gone_goes_on_while_its_optimizer_is_there() -> None:
    pruner, model = prepared()
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    away = ~masks(pruner)["0.weight"]
    del pruner
    gc.collect()
    for _ in range(3):
        loss_of(model).backward()
        assert not model[0].weight.grad[away].any()
        optimizer.step()
        assert not model[0].weight.detach()[away].any()


@pytest.mark.parametrize("first", ["detached", "finalized"])
def test_a_pruner_that_has_let_go_is_not_kept_by_the_model(first: str) -> None:
    pruner, model = prepared()
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer)
    pruner.finalize() if first == "finalized" else pruner.detach()
    gone = weakref.ref(pruner)
    del pruner
    gc.collect()
    assert gone() is None
    loss_of(model).backward()
    assert model[0].weight.grad[model[0].weight == 0].any()


def test_a_module_that_the_user_takes_out_of_the_model() -> None:
    pruner, model = prepared(schedule=RAMP)
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=3)
    model[2] = nn.Linear(16, 4)
    stepped(pruner, model, optimizer, steps=4)
    assert list(masks(pruner)) == ["0.weight"]
    assert_masked(pruner)


def test_a_config_that_leaves_all_dense() -> None:
    pruner = InPlacePruner(net(), MagnitudePrunerConfig(global_config=None))
    with pytest.warns(UserWarning, match="leaves every weight dense"):
        model = pruner.prepare()
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer)
    assert pruner.state_dict()["masks"] == {}
    pruner.load_state_dict(pruner.state_dict())
    pruner.finalize()
