"""Criteria that look at gradients: of pruned weights as well, whole and unscaled."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from coreai_opt.pruning import InPlacePruner
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.conftest import ROOT
from tests.helpers.pruning.in_place import (
    INPUTS,
    assert_masked,
    config,
    loss_of,
    masks,
    net,
    prepared,
)

PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


class LateOn:
    """Half of the weights from the second step on, computed anew at the fourth and the sixth."""

    def compute_sparsity(self, step: int, target: float, previous: float | None = None) -> float:
        return {0: 0.0, 1: 0.0, 4: target + 1e-6, 5: target + 1e-6}.get(step, target)


def impl_of(model: nn.Module) -> Any:
    return next(pruned_tensors(model)).impl


def two_weights(regrowth: bool, algo: Any = "taylor") -> tuple[InPlacePruner, nn.Linear, SGD]:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 1.0]])
    pruner = InPlacePruner(model, config(0.5, LateOn(), algo, allow_regrowth=regrowth))
    pruner.prepare()
    optimizer = SGD(model.parameters(), 0.0)
    pruner.attach(optimizer)
    return pruner, model, optimizer


def matters(model: nn.Module, optimizer: SGD, first: float, second: float) -> None:
    """Take a step in which the weights have these gradients."""
    model(torch.tensor([[first, second]])).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("regrowth", [True, False])
def test_taylor_brings_back_what_matters_again_where_it_may(regrowth: bool) -> None:
    pruner, model, optimizer = two_weights(regrowth)
    for _ in range(2):  # the first weight matters less, and is pruned
        matters(model, optimizer, 1.0, 5.0)
        pruner.step()
    assert model.weight.tolist() == [[0.0, 1.0]]
    for _ in range(2):  # now it would matter more than the other
        matters(model, optimizer, 9.0, 5.0)
        pruner.step()
    impl = impl_of(model)
    if regrowth:
        assert model.weight.tolist() == [[1.0, 0.0]]  # with the value that it had
        assert impl.regrown == 1
    else:
        assert model.weight.tolist() == [[0.0, 1.0]]
        assert impl.regrown == 0


def test_clipping_does_not_make_kept_weights_matter_less_than_pruned_ones() -> None:
    pruner, model, optimizer = two_weights(regrowth=True)
    for _ in range(6):
        model(torch.tensor([[1.0, 5.0]])).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        if pruner.step_count > 1:
            assert model.weight.tolist() == [[0.0, 1.0]]
    assert impl_of(model).regrown == 0


def test_a_gradient_that_is_replaced_is_seen_where_it_is_not_masked() -> None:
    pruner, model, optimizer = two_weights(regrowth=True)
    for _ in range(2):
        matters(model, optimizer, 1.0, 5.0)
        pruner.step()
    model(torch.tensor([[1.0, 5.0]])).sum().backward()
    model.weight.grad = torch.tensor([[3.0, 7.0]])
    optimizer.step()
    assert impl_of(model).importance.tolist() == [[1.0, 7.0]]


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_taylor_adds_up_the_gradient_of_whole_steps(parts: int) -> None:
    pruner, model = prepared(algo="taylor", schedule=PolynomialDecaySchedule(total_iters=50))
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    for _ in range(3):  # until something is pruned
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    assert_masked(pruner)
    impl = impl_of(model)
    wanted = torch.zeros_like(impl.importance)
    for _ in range(3):
        twin = net()
        twin.load_state_dict(model.state_dict())
        for part in INPUTS.chunk(parts):
            loss_of(twin, part).backward()
            loss_of(model, part).backward()
        gradient = twin[0].weight.grad
        assert gradient is not None
        dense = pruner._weights.full(0)
        assert dense.all()
        wanted += (dense * gradient).abs()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(impl.importance, wanted)
    assert impl.importance[~impl.mask].any()


def documented(name: str) -> Any:
    """A criterion of docs/extending.md."""
    page = (ROOT / "docs" / "extending.md").read_text()
    (code,) = [code for code in PYTHON.findall(page) if f"class {name}(" in code]
    names: dict[str, Any] = {}
    exec(compile(code, "documented", "exec"), names)
    return names[name]


class Often:
    """The same sparsity, said a little differently at each step: masks are made anew."""

    def compute_sparsity(self, step: int, target: float, previous: float | None = None) -> float:
        return 0.0 if step < 1 else target + 1e-9 * (step % 2)


def test_a_criterion_of_somebodys_own_grows_by_gradient() -> None:
    model = nn.Linear(4, 2, bias=False)
    model.weight.data = torch.tensor([[8.0, 7.0, 6.0, 5.0], [4.0, 3.0, 2.0, 1.0]])
    growing = documented("GrowByGradient")
    pruner = InPlacePruner(model, config(0.5, Often(), growing))
    pruner.prepare()
    optimizer = SGD(model.parameters(), 0.0)
    pruner.attach(optimizer)
    inputs = torch.tensor([[1.0, 2.0, 3.0, 40.0]])

    def step() -> None:
        model(inputs)[:, 1].sum().backward()  # the second row has the gradients
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()

    step()
    assert model.weight.tolist() == [[8.0, 7.0, 6.0, 5.0], [0.0] * 4]
    step()  # the one of four with the least magnitude goes, that with the largest gradient comes
    assert model.weight.tolist() == [[8.0, 7.0, 6.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    assert impl_of(model).regrown == 1
    again = nn.Linear(4, 2, bias=False)
    other = InPlacePruner(again, config(0.5, Often(), growing))
    other.prepare(state_dict=pruner.state_dict())
    assert torch.equal(impl_of(again).slope, impl_of(model).slope)


@pytest.mark.filterwarnings("ignore:Using backward.* with create_graph=True")
def test_a_double_backward_leaves_the_graph_of_a_watched_gradient_alone() -> None:
    pruner, model = prepared(
        nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)), schedule=Often(), algo="taylor"
    )
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    for _ in range(4):
        loss_of(model).backward(create_graph=True)
        model[0].weight.grad.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    assert_masked(pruner)


def test_what_autograd_returns_adds_nothing_to_a_gradient() -> None:
    pruner, model = prepared(schedule=Often(), algo="taylor")
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    loss_of(model).backward()
    optimizer.step()
    optimizer.zero_grad()
    pruner.step()
    loss_of(model).backward()
    before = model[0].weight.grad.clone()
    found = torch.autograd.grad(loss_of(model), [model[0].weight])[0]
    assert found[~masks(pruner)["0.weight"]].any()
    assert torch.equal(model[0].weight.grad, before)
    assert_masked(pruner, gradients=True)
    impl = impl_of(model)
    optimizer.step()
    wanted = (pruner._weights.full(0) + 0.1 * before) * found
    torch.testing.assert_close(impl.importance[impl.mask], wanted.abs()[impl.mask])
