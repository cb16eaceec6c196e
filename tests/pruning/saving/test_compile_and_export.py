"""Prepared models in torch.compile and torch.export, and their state in other dtypes and copies."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, save_pruned
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import DivergedWeightError, PruningError
from coreai_opt.pruning.model.copying import copy_of
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning import asking, same
from tests.helpers.pruning.models import Language, Tied

RAMP = PolynomialDecaySchedule(total_iters=8, power=1)
GAPS = PolynomialDecaySchedule(total_iters=12, power=2, update_frequency=3)
LAST = 13


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 6))


def config(
    algo: str = "default", allocation: Any = "uniform", schedule: Any = GAPS, target: float = 0.7
) -> MagnitudePrunerConfig:
    return asking(schedule, allocation, target_sparsity=target, pruning_algo=algo)


def prepared(seed: int = 0, dtype: torch.dtype = torch.float32, **fields: Any) -> MagnitudePruner:
    pruner = MagnitudePruner(net(seed).to(dtype), config(**fields))
    pruner.prepare()
    return pruner


def masks(pruner: MagnitudePruner) -> list[Tensor]:
    return [tensor.impl.mask.clone() for tensor in pruned_tensors(pruner.model)]


def weights(pruner: MagnitudePruner) -> list[Tensor]:
    return [tensor.original.detach().clone() for tensor in pruned_tensors(pruner.model)]


def train(pruner: MagnitudePruner, first: int, last: int, forward: Any = None) -> list[Any]:
    """Plain gradient descent with a step after each batch; return the masks of each step."""
    seen = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        batch = torch.randn(4, 2, 5, generator=generator)
        batch = batch.to(next(pruner.model.parameters()).dtype)
        pruner.model.zero_grad()
        (forward or pruner.model)(batch).square().mean().backward()
        with torch.no_grad():
            for parameter in pruner.model.parameters():
                parameter.sub_(0.5 * parameter.grad)
        pruner.step()
        seen.append(masks(pruner))
    return seen


@pytest.mark.usefixtures("_compiler")
def test_a_compiled_model_sees_new_masks_without_compiling_again() -> None:
    pruner = prepared(schedule=RAMP)
    compiled: Any = torch.compile(pruner.model, backend="aot_eager", fullgraph=True)
    batch, seen = torch.rand(4, 2, 5), []
    for _ in range(9):
        output = compiled(batch)
        torch.testing.assert_close(output, pruner.model(batch))
        seen.append(output.detach())
        pruner.step()
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    # 8 different masks, then the last one again.
    assert [torch.equal(a, b) for a, b in pairwise(seen)] == [False] * 7 + [True]


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("algo", ["default", "random", "taylor"])
def test_a_compiled_training_is_that_of_the_plain_model(algo: str) -> None:
    plain, other = prepared(algo=algo, schedule=RAMP), prepared(algo=algo, schedule=RAMP)
    compiled = torch.compile(other.model, backend="aot_eager", fullgraph=True)
    expected, found = train(plain, 0, 9), train(other, 0, 9, compiled)
    assert all(same(one, two) for one, two in zip(expected, found, strict=True))
    torch.testing.assert_close(weights(plain), weights(other))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 1
    assert other.at_target()


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("how", ["copied", "assigned"])
def test_taylor_sees_new_parameters_once_they_have_run_uncompiled(how: str) -> None:
    plain, other = prepared(algo="taylor", schedule=RAMP), prepared(algo="taylor", schedule=RAMP)
    if how == "copied":
        other = copy.deepcopy(other)
    else:
        other.model.load_state_dict(copy.deepcopy(other.model.state_dict()), assign=True)
    compiled: Any = torch.compile(other.model, backend="aot_eager", fullgraph=True)
    compiled(torch.rand(4, 2, 5)).sum().backward()
    with pytest.raises(PruningError, match="none has reached"):
        other.step()
    torch._dynamo.reset()
    other.model(torch.rand(4, 2, 5))
    expected, found = train(plain, 0, 9), train(other, 0, 9, compiled)
    assert all(same(one, two) for one, two in zip(expected, found, strict=True))


@pytest.mark.usefixtures("_compiler")
def test_a_finalized_model_compiles() -> None:
    pruner = prepared(schedule=None)
    batch = torch.rand(4, 2, 5)
    expected = pruner.model(batch)
    compiled: Any = torch.compile(pruner.finalize(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch), expected)


MODELS: list[Any] = [
    pytest.param(net, lambda: torch.rand(4, 2, 5), 2, id="plain"),
    pytest.param(Tied, lambda: torch.rand(3, 4), 2, id="tied"),
    pytest.param(Language, lambda: torch.tensor([[0, 1, 2, 3, 4]]), 2, id="embedding"),
]


@pytest.mark.parametrize(("make", "batch", "pruned"), MODELS)
def test_a_finalized_model_is_exported(
    make: Callable[[], nn.Module], batch: Callable[[], Tensor], pruned: int
) -> None:
    inputs = batch()
    pruner = MagnitudePruner(make())
    model = pruner.prepare()
    assert len(masks(pruner)) == pruned
    expected = model(inputs).detach()
    final = pruner.finalize()
    keys = list(final.state_dict())
    program = torch.export.export(final, (inputs,))
    torch.testing.assert_close(program.module()(inputs), expected)
    assert set(program.state_dict) <= set(keys)
    assert not any("mask" in key or "parametrizations" in key for key in program.state_dict)
    for name, value in program.state_dict.items():
        assert torch.equal(value, final.state_dict()[name])


def test_a_prepared_model_is_exported_with_its_masks() -> None:
    pruner = prepared(schedule=None)
    batch = torch.rand(4, 2, 5)
    program = torch.export.export(pruner.model, (batch,))
    torch.testing.assert_close(program.module()(batch), pruner.model(batch))


class Plain(nn.Module):
    """Parameters of which one is pruned and another may be parametrized by somebody else."""

    def __init__(self) -> None:
        super().__init__()
        for name, shape in (("scale", (4,)), ("kernel", (4, 4)), ("bias", (4,))):
            self.register_parameter(name, nn.Parameter(torch.rand(shape)))

    def forward(self, batch: Tensor) -> Tensor:
        return nn.functional.linear(batch, self.kernel, self.bias) * self.scale


@pytest.mark.parametrize("other", [None, "scale", "bias"])
def test_finalize_keeps_the_order_beside_somebody_elses_parametrization(other: str | None) -> None:
    model = Plain()
    if other is not None:
        parametrize.register_parametrization(model, other, nn.Identity())
    keys, parameters = list(model.state_dict()), [name for name, _ in model.named_parameters()]
    attributes = set(vars(model))
    for _ in range(2):
        pruner = MagnitudePruner(model)
        pruner.prepare(torch.rand(2, 4))
        assert list(pruner.finalize().state_dict()) == keys
    assert [name for name, _ in model.named_parameters()] == parameters
    assert set(vars(model)) == attributes
    assert parametrize.is_parametrized(model) is (other is not None)


EVERYTHING = [("default", "uniform"), ("random", "erdos_renyi"), ("taylor", "global")]
every = pytest.mark.parametrize(("algo", "allocation"), EVERYTHING)


@every
@pytest.mark.parametrize("cut", [1, 4, 5, 11])
def test_a_state_goes_on_bit_for_bit_in_the_middle_of_a_gap(
    algo: str, allocation: Any, cut: int
) -> None:
    fields = {"algo": algo, "allocation": allocation}
    whole = prepared(0, **fields)
    expected = train(whole, 0, LAST)
    before, after = prepared(0, **fields), prepared(1, **fields)
    train(before, 0, cut)
    after.model.load_state_dict(copy.deepcopy(before.model.state_dict()))
    assert after.step_count == cut
    scheduled = [t.impl.scheduled for t in pruned_tensors(before.model)]
    assert [t.impl.scheduled for t in pruned_tensors(after.model)] == scheduled
    found = train(after, cut, LAST)
    assert all(same(one, two) for one, two in zip(found, expected[cut:], strict=True))
    assert same(weights(after), weights(whole))
    assert after.at_target()


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_state_goes_into_another_dtype(algo: str, allocation: Any, dtype: torch.dtype) -> None:
    fields = {"algo": algo, "allocation": allocation}
    before, after = prepared(0, **fields), prepared(1, dtype, **fields)
    train(before, 0, 5)
    after.model.load_state_dict(before.model.state_dict())
    assert same(masks(after), masks(before))
    assert {weight.dtype for weight in weights(after)} == {dtype}
    assert after.step_count == 5
    train(after, 5, LAST)
    total, asked = sum(mask.numel() for mask in masks(after)), config(**fields)
    pruned = sum(int((~mask).sum()) for mask in masks(after))
    assert asked.allocation == allocation
    assert int(total * 0.7) - 2 < pruned <= int(total * 0.7)
    assert after.at_target()
    assert {value.dtype for value in after.finalize().state_dict().values()} == {dtype}


@every
def test_a_copy_of_pruner_and_model_goes_on_by_itself(algo: str, allocation: Any) -> None:
    pruner = prepared(0, algo=algo, allocation=allocation)
    train(pruner, 0, 4)
    frozen = masks(pruner)
    twin, model = copy.deepcopy((pruner, pruner.model))
    assert twin.model is model
    found = train(twin, 4, LAST)
    assert same(masks(pruner), frozen)
    assert (pruner.step_count, twin.step_count) == (4, LAST)
    expected = train(pruner, 4, LAST)
    assert all(same(one, two) for one, two in zip(found, expected, strict=True))
    keys = list(net().state_dict())
    assert list(twin.finalize().state_dict()) == keys
    assert pruner.at_target()
    assert list(pruner.finalize().state_dict()) == keys


@every
def test_nan_is_named_and_leaves_masks_and_clock(algo: str, allocation: Any) -> None:
    pruner = prepared(0, algo=algo, allocation=allocation)
    train(pruner, 0, 5)
    (first, second), before = list(pruned_tensors(pruner.model)), masks(pruner)
    state = {name: value.clone() for name, value in pruner.model.state_dict().items()}
    with torch.no_grad():
        second.original[0, 0] = torch.nan
    with pytest.raises(DivergedWeightError, match=r"NaN in '3\.weight';"):
        pruner.step()
    with torch.no_grad():
        first.original[0, 0] = torch.nan
    with pytest.raises(DivergedWeightError, match=r"'0\.weight', '3\.weight'") as caught:
        pruner.step(4)
    assert caught.value.names == ["0.weight", "3.weight"]
    assert same(masks(pruner), before)
    assert pruner.step_count == 5
    with pytest.raises(DivergedWeightError):
        pruner.finalize()
    assert len(list(pruned_tensors(pruner.model))) == 2
    pruner.model.load_state_dict(state)
    train(pruner, 5, LAST)
    assert pruner.at_target()


@pytest.mark.parametrize("schedule", [None, RAMP.model_copy(update={"initial_sparsity": 0.1})])
def test_nan_in_prepare_leaves_the_model_as_it_was(schedule: Any) -> None:
    model = net()
    with torch.no_grad():
        model[3].weight[2, 2] = torch.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = model[0].weight
    pruner = MagnitudePruner(model, config(schedule=schedule))
    with pytest.raises(DivergedWeightError, match=r"NaN in '3\.weight'"):
        pruner.prepare()
    assert list(model.state_dict()) == list(before)
    assert (model[0].weight is kept, type(model[0])) == (True, nn.Conv1d)
    with torch.no_grad():
        model[3].weight[2, 2] = before["3.weight"][2, 2] = 0.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    pruner.prepare()
    pruner.step(8)
    assert pruner.at_target()


def test_nan_is_not_looked_for_while_no_mask_is_due() -> None:
    pruner = prepared(0)
    with torch.no_grad():
        for tensor in pruned_tensors(pruner.model):
            tensor.original.fill_(torch.nan)
    pruner.step(2)
    with pytest.raises(DivergedWeightError):
        pruner.step()
    assert pruner.step_count == 2


def test_infinities_of_half_precision_are_the_largest() -> None:
    pruner = prepared(0, torch.float16)
    first = next(pruned_tensors(pruner.model))
    with torch.no_grad():
        first.original[0, 0] = 60_000.0
        first.original.mul_(4)
    assert first.original.isinf().any()
    pruner.step(LAST)
    assert first.impl.mask[0, 0].all()
    assert int((~first.impl.mask).sum()) == 33
    assert pruner.at_target()


def test_a_copy_of_a_prepared_model_keeps_what_is_compiled(tmp_path: Path) -> None:
    inner = nn.Sequential(torch.compile(nn.Linear(7, 9), backend="eager"), nn.ReLU())
    model = nn.Sequential(torch.compile(inner, backend="eager"), nn.Linear(9, 5))
    MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5)).prepare()
    copied = copy_of(model)
    assert list(copied.state_dict()) == list(model.state_dict())
    assert [type(each) for each in copied.modules()] == [type(each) for each in model.modules()]
    originals = {id(value) for value in [*model.parameters(), *model.buffers()]}
    assert originals.isdisjoint(id(value) for value in [*copied.parameters(), *copied.buffers()])
    inputs = torch.rand(3, 7)
    assert torch.equal(copied(inputs), model(inputs))
    save_pruned(model, tmp_path)
    names = list(load_file(tmp_path / "weights.safetensors"))
    assert sorted(names) == sorted(
        f"{layer}.{name}"
        for layer in ("0._orig_mod.0._orig_mod", "1")
        for name in ("bias", "weight")
    )
