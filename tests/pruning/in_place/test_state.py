"""A training that stops at any step goes on as if it had not, in a fresh model."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from coreai_opt.pruning import InPlacePruner
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning.in_place import RAMP, Cyclic, assert_masked, config, loss_of, masks, net
from tests.helpers.pruning.reference_masks import through_a_file

STEPS = 9


def bits(value: Tensor) -> bytes:
    return value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def everything(pruner: InPlacePruner, optimizer: Any) -> dict[str, Any]:
    """All that a training has, bit for bit."""
    found: dict[str, Any] = {"clock": pruner.step_count, "at target": pruner.at_target()}
    for name, value in pruner.model.state_dict().items():
        found[name] = bits(value)
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            found[f"{index} {key}"] = bits(value) if isinstance(value, Tensor) else value
    for tensor in pruned_tensors(pruner.model):
        impl = tensor.impl
        found[f"{tensor.name} impl"] = (impl.sparsity, impl.scheduled, impl.regrown)
        found[f"{tensor.name} mask"] = bits(impl.mask)
    for name, one in pruner.state_dict()["masks"].items():
        if "dense" in one:
            found[f"{name} dense"] = bits(one["dense"])
        for key, value in one.get("criterion", {}).items():
            found[f"{name} {key}"] = bits(value)
    return found


def training(settings: dict[str, Any], make: Any, saved: Any = None, seed: int = 0) -> Any:
    model = net(seed)
    if saved is not None:
        model.load_state_dict(saved["model"])
    pruner = InPlacePruner(model, config(**settings))
    pruner.prepare(state_dict=None if saved is None else saved["pruner"])
    optimizer = make(model.parameters())
    pruner.attach(optimizer)
    if saved is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return pruner, optimizer


def going_on(pruner: InPlacePruner, optimizer: Any, first: int) -> Iterator[int]:
    for step in range(first, STEPS):
        yield step
        inputs = torch.randn(8, 8, generator=torch.Generator().manual_seed(step))
        loss_of(pruner.model, inputs).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    yield STEPS


CASES = [
    {"schedule": RAMP},
    {"schedule": RAMP, "allow_regrowth": False},
    {"schedule": Cyclic()},
    {"schedule": Cyclic(), "allow_regrowth": False},
    {"schedule": RAMP, "allocation": "global"},
    {"schedule": Cyclic(), "allocation": "global"},
    {"schedule": RAMP, "algo": "random"},
    {"schedule": RAMP, "algo": "taylor"},
    {"schedule": RAMP, "algo": "taylor", "allow_regrowth": False},
    {"schedule": RAMP, "algo": "taylor", "allocation": "global"},
    {},
]
MAKERS = [lambda weights: SGD(weights, 0.1, 0.9, weight_decay=0.1), AdamW]


@pytest.mark.parametrize(
    "make", [pytest.param(MAKERS[0], marks=pytest.mark.slow), MAKERS[1]], ids=["sgd", "adamw"]
)
@pytest.mark.parametrize("settings", CASES, ids=str)
def test_going_on_at_every_step(settings: dict[str, Any], make: Any) -> None:
    pruner, optimizer = training(settings, make)
    saved = []
    for _ in going_on(pruner, optimizer, 0):
        parts = {"model": pruner.model, "pruner": pruner, "optimizer": optimizer}
        saved.append(through_a_file({name: part.state_dict() for name, part in parts.items()}))
    ended = everything(pruner, optimizer)
    for first, state in enumerate(saved):
        again, theirs = training(settings, make, state, seed=1)
        assert again.step_count == first
        for _ in going_on(again, theirs, first):
            pass
        assert everything(again, theirs) == ended


@pytest.mark.parametrize("order", ["pruner first", "weights first"])
def test_a_state_is_loaded_into_a_prepared_model_in_any_order(order: str) -> None:
    settings: dict[str, Any] = {"schedule": Cyclic()}
    pruner, optimizer = training(settings, AdamW)
    for step in going_on(pruner, optimizer, 0):
        if step == 4:
            break
    weights = through_a_file(pruner.model.state_dict())
    state, theirs = through_a_file(pruner.state_dict()), through_a_file(optimizer.state_dict())
    again, other = training(settings, AdamW, seed=1)
    if order == "pruner first":
        again.load_state_dict(state)
        again.model.load_state_dict(weights)
    else:
        again.model.load_state_dict(weights)
        again.load_state_dict(state)
    other.load_state_dict(theirs)
    assert everything(again, other) == everything(pruner, optimizer)


def test_its_size_is_a_bit_a_mask_element_and_the_values_of_what_is_pruned() -> None:
    model = nn.Linear(100, 100, bias=False)
    for regrowth in (True, False):
        pruner = InPlacePruner(model, config(0.75, allow_regrowth=regrowth))
        pruner.prepare()
        (one,) = through_a_file(pruner.state_dict())["masks"].values()
        tensors = {key: value for key, value in one.items() if isinstance(value, Tensor)}
        assert tensors["bits"].untyped_storage().nbytes() == 10_000 // 8
        if regrowth:
            assert tensors["dense"].untyped_storage().nbytes() == 7_500 * 4
        else:
            assert "dense" not in tensors
        file = io.BytesIO()
        torch.save(pruner.state_dict(), file)
        assert file.getbuffer().nbytes < 1_250 + 30_000 * regrowth + 3_000
        pruner.finalize()


def taken(pruner: InPlacePruner) -> Any:
    return {name: bits(mask) for name, mask in masks(pruner).items()}, pruner.step_count


def other_state(**settings: Any) -> dict[str, Any]:
    pruner = InPlacePruner(net(), config(0.5, RAMP, **settings))
    pruner.prepare()
    pruner.step(3)
    return pruner.state_dict()


def wide() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 4))
    pruner = InPlacePruner(model, config())
    pruner.prepare()
    return pruner.state_dict()


def without(name: str) -> dict[str, Any]:
    state = other_state()
    del state["masks"][name]
    return state


def with_more() -> dict[str, Any]:
    state = other_state()
    state["masks"]["4.weight"] = state["masks"]["2.weight"]
    return state


def changed(field: str, value: Any) -> dict[str, Any]:
    state = other_state()
    state["masks"]["2.weight"][field] = value
    return state


WRONG = {
    "no state": (lambda: {}, "it has no 'masks'"),
    "weights": (lambda: net().state_dict(), "it has no 'masks'"),
    "later": (lambda: other_state() | {"format": 9}, "format 9; allowed: 1"),
    "without one": (lambda: without("0.weight"), "has no mask of '0.weight'"),
    "one more": (with_more, "a mask of what stays dense here '4.weight'"),
    "other shape": (wide, r"'0.weight' is \[16, 9\] in it and \[16, 8\] here"),
    "other criterion": (lambda: other_state(algo="random"), "'seed'"),
    "cut bits": (lambda: changed("bits", torch.zeros(1, dtype=torch.uint8)), "2.weight.*damaged"),
    "cut values": (lambda: changed("dense", torch.zeros(1)), "2.weight.*damaged"),
    "no clock": (
        lambda: {k: v for k, v in other_state().items() if k != "step_count"},
        "it has no 'step_count'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_state_of_another_training_is_refused_and_nothing_of_it_taken(name: str) -> None:
    make, message = WRONG[name]
    pruner = InPlacePruner(net(), config(0.5, RAMP))
    pruner.prepare()
    pruner.step(2)
    before = taken(pruner)
    weights = [bits(value) for value in pruner.model.parameters()]
    with pytest.raises(PruningError, match=message) as error:
        pruner.load_state_dict(make())
    assert "\n" not in str(error.value)
    assert taken(pruner) == before
    assert [bits(value) for value in pruner.model.parameters()] == weights
    fresh = InPlacePruner(net(), config(0.5, RAMP))
    with pytest.raises(PruningError, match=message):
        fresh.prepare(state_dict=make())
    assert not any(pruned_tensors(fresh.model))


def test_a_state_without_dense_values_is_taken_where_weights_may_come_back() -> None:
    pruner = InPlacePruner(net(), config(0.5, RAMP))
    pruner.prepare(state_dict=other_state(allow_regrowth=False))
    assert pruner.step_count == 3
    assert_masked(pruner)
    pruner.step(3)
    assert pruner.at_target()


def test_a_model_in_half_precision_goes_on() -> None:
    first = InPlacePruner(net().to(torch.bfloat16), config(0.5, RAMP))
    first.prepare()
    first.step(4)
    again = InPlacePruner(net().to(torch.bfloat16), config(0.5, RAMP))
    again.prepare(state_dict=through_a_file(first.state_dict()))
    for pruner in (first, again):
        pruner.step(2)
    assert taken(first) == taken(again)
    states = (first.model.state_dict(), again.model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
