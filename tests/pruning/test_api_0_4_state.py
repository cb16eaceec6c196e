"""State dicts of the documented API load here and ours load there; former ones of ours still do."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from coreai_opt.pruning import (
    MagnitudePruner,
)
from coreai_opt.pruning.config import ConstantSparsitySchedule, SparsityScheduleBase
from coreai_opt.pruning.spec import ChannelStructured
from tests.helpers.pruning import impl, net
from tests.helpers.pruning.reference_masks import (
    LAYERS,
    numbers,
    of,
    prepared,
    regrown,
    same,
    theirs,
    through_a_file,
    train,
)

# Seven of nine channels are not 80 %.
pytestmark = pytest.mark.filterwarnings(
    "ignore::coreai_opt.pruning.errors.UnreachableSparsityWarning"
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


CONFIGS = {
    "ramp": of(),
    "at once": of(schedule=None),
    "later": of(schedule=ConstantSparsitySchedule(begin_step=5)),
    "channels": of(ChannelStructured()),
    "erdos_renyi": of(allocation="erdos_renyi"),
    "global": of(allocation="global"),
    "no regrowth": of(allow_regrowth=False),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", [0, 4, 7, 25])
def test_ours_loads_there(dtype: torch.dtype, step: int) -> None:
    pruner, model = prepared(of(), dtype)
    train(pruner, 0, step)
    there = theirs(dtype)
    there.load_state_dict(model.state_dict(), strict=True)
    for name in LAYERS:
        mask = there.get_submodule(name).parametrizations.weight[0]
        assert mask.mask.dtype == dtype
        assert torch.equal(mask.mask.bool(), impl(model, name).mask)
        assert int(mask.step_count) == step
        assert torch.equal(there.get_submodule(name).weight, model.get_submodule(name).weight)


def test_the_entries_are_those_that_are_documented() -> None:
    pruner, model = prepared(of())
    train(pruner, 0, 7)
    assert regrown(pruner) > 0
    state = model.state_dict()
    assert state.keys() == theirs().state_dict().keys()
    for name in LAYERS:
        count = state[f"{name}.parametrizations.weight.0.step_count"]
        assert (count.dtype, count.shape, int(count)) == (torch.int64, (), 7)
        assert impl(model, name).step_count == 7


@pytest.mark.parametrize(
    ("kind", "way", "dtype"),
    [
        *((kind, "prepare", torch.float32) for kind in CONFIGS),
        *((kind, "load_state_dict", torch.float32) for kind in CONFIGS),
        *(("ramp", "prepare", dtype) for dtype in DTYPES[1:]),
    ],
)
def test_theirs_goes_on_here(kind: str, way: str, dtype: torch.dtype) -> None:
    config = CONFIGS[kind]
    pruner, model = prepared(config, dtype)
    train(pruner, 0, 7)
    there = theirs(dtype)
    there.load_state_dict(model.state_dict())
    state = through_a_file(there.state_dict())
    if way == "prepare":
        ours = MagnitudePruner(net().to(dtype), config)
        ours.prepare(state_dict=state)
    else:
        ours, plain = prepared(config, dtype)
        plain.load_state_dict(state, strict=True)
    assert numbers(ours) == numbers(pruner)
    assert impl(ours.model).mask.dtype == torch.bool
    assert same([list(ours.model.state_dict().values())], [list(model.state_dict().values())])
    assert same(train(ours, 7, 25), train(pruner, 7, 25))
    assert ours.at_target()


def test_theirs_may_be_assigned() -> None:
    pruner, model = prepared(of())
    train(pruner, 0, 7)
    there = theirs()
    there.load_state_dict(model.state_dict())
    ours, plain = prepared(of())
    plain.load_state_dict(there.state_dict(), assign=True)
    assert impl(plain).mask.dtype == torch.bool
    assert numbers(ours) == numbers(pruner)
    assert same(train(ours, 7, 12), train(pruner, 7, 12))


def test_no_mask_is_recomputed() -> None:
    pruner, model = prepared(of())
    train(pruner, 0, 7)
    there = theirs()
    there.load_state_dict(model.state_dict())
    masks = [impl(model, name).mask.clone() for name in LAYERS]
    for name in LAYERS:  # the masks in force are no longer those of the weights
        weight = there.get_submodule(name).parametrizations.weight.original
        weight.data = weight.data.flip(0)
    ours = MagnitudePruner(net(), of())
    ours.prepare(state_dict=there.state_dict())
    ours.step()  # step 8 lies between two updates
    assert ours.update_count == 0
    assert all(
        torch.equal(impl(ours.model, name).mask, mask)
        for name, mask in zip(LAYERS, masks, strict=True)
    )


class Two:
    def compute_sparsity(self, step_count: int, target_sparsity: float) -> float:
        return target_sparsity * min(step_count, 20) / 20


class AddingUp:
    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float
    ) -> float:
        return min(prev_sparsity + 0.05, target_sparsity) if step_count % 3 == 1 else prev_sparsity


class AddingUpByDefault(SparsityScheduleBase):
    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        return min((prev_sparsity or 0.0) + 0.05, target_sparsity)


@pytest.mark.parametrize(
    "schedule", [Two(), AddingUp(), AddingUpByDefault()], ids=["two", "three", "of our base"]
)
def test_schedules_of_a_users_own_go_on(schedule: Any) -> None:
    config = of(schedule=schedule)
    pruner, model = prepared(config)
    train(pruner, 0, 7)
    there = theirs()
    there.load_state_dict(model.state_dict())
    ours = MagnitudePruner(net(), config)
    ours.prepare(state_dict=there.state_dict())
    assert numbers(ours) == numbers(pruner)
    assert same(train(ours, 7, 12), train(pruner, 7, 12))


Mapped = Callable[[dict[str, Any]], dict[str, Any]]
MAPPED: dict[str, Mapped] = {
    "file": through_a_file,
    "copy": copy.deepcopy,
    "cpu": lambda state: {key: value.cpu() for key, value in state.items()},
    "half": lambda state: {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    },
    "safetensors": lambda state: load_safetensors(save_safetensors(dict(state))),
}


@pytest.mark.parametrize(
    ("kind", "way"), [*(("ramp", way) for way in MAPPED), *((kind, "file") for kind in CONFIGS)]
)
def test_a_state_that_was_mapped_has_the_sparsity_and_the_clock(kind: str, way: str) -> None:
    pruner, model = prepared(CONFIGS[kind])
    train(pruner, 0, 7)
    ours, plain = prepared(CONFIGS[kind])
    plain.load_state_dict(MAPPED[way](model.state_dict()))
    assert numbers(ours) == numbers(pruner)
    assert torch.equal(impl(plain).mask, impl(model).mask)
    if way in ("file", "copy"):
        assert regrown(ours) == regrown(pruner)


def test_a_mask_of_another_course_is_taken_for_what_it_is() -> None:
    pruner, model = prepared(of())
    train(pruner, 0, 7)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    ours, plain = prepared(of(schedule=None))
    plain.load_state_dict(state)
    zeros = int((~impl(plain).mask).sum())
    assert zeros == int((~impl(model).mask).sum()) == int(63 * impl(plain).sparsity)
    assert not ours.at_target()


def test_numbers_of_another_step_are_not_used() -> None:
    pruner, model = prepared(of())
    train(pruner, 0, 7)
    state = model.state_dict()
    for key in state:
        if key.endswith("step_count"):
            state[key] = torch.tensor(8)
    ours, plain = prepared(of())
    plain.load_state_dict(state)
    assert numbers(ours)[1:] == numbers(pruner)[1:]  # step 8 keeps what step 6 has asked for
    assert (ours.step_count, regrown(ours)) == (8, 0)
