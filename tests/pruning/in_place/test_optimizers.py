"""No forward pass ever meets an unmasked weight, whatever an optimizer does in its step."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adafactor, AdamW, Optimizer

from coreai_opt.pruning import InPlacePruner
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning.in_place import (
    INPUTS,
    RAMP,
    Cyclic,
    assert_masked,
    loss_of,
    masks,
    net,
    prepared,
    stepped,
)


@contextmanager
def spied(pruner: InPlacePruner) -> Iterator[list[str]]:
    """Look at the weights in each forward pass of their modules."""
    passes: list[str] = []
    handles = []
    for tensor in pruned_tensors(pruner.model):

        def look(module: Any, inputs: Any, tensor: Any = tensor) -> None:
            weight = getattr(module, tensor.parameter).detach()
            assert not weight[~tensor.impl.mask].any(), f"{tensor.name} is seen unmasked"
            passes.append(tensor.name)

        handles.append(tensor.module.register_forward_pre_hook(look))
    yield passes
    for handle in handles:
        handle.remove()


class Sam(Optimizer):
    """Sharpness-aware minimization in its common form: two steps around a second pass."""

    def __init__(self, params: Any, base: Any, rho: float = 0.5, **settings: Any) -> None:
        super().__init__(params, {"rho": rho} | settings)
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        for weight in (each for group in self.param_groups for each in group["params"]):
            self.state[weight]["old"] = weight.data.clone()
            weight.add_(weight.grad / weight.grad.norm(), alpha=0.5)

    @torch.no_grad()
    def second_step(self) -> None:
        for weight in (each for group in self.param_groups for each in group["params"]):
            weight.data = self.state[weight]["old"]
        self.base_optimizer.step()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        again = torch.enable_grad()(closure)
        again()
        self.first_step()
        self.zero_grad()
        again()
        self.second_step()


class Restless(SGD):
    """Moves all weights around before it asks for a gradient, in ways that no version tells."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data += 0.1
        loss = closure() if closure is not None else None
        super().step()
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data = weight.data + 0.01  # other memory
        return loss


class Lookahead(Optimizer):
    """Wraps another, and moves weights towards slow copies that were made before any mask."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__([each for group in inner.param_groups for each in group["params"]], {})
        self.inner = inner
        self.slow = {each: each.detach().clone() for each in self.param_groups[0]["params"]}

    def step(self, closure: Any = None) -> Any:
        result = self.inner.step(closure)
        for weight, slow in self.slow.items():
            slow += 0.5 * (weight.detach() - slow)
            weight.data.copy_(slow)
        return result


def muon(model: nn.Module) -> list[Optimizer]:
    kind = getattr(torch.optim, "Muon", None)
    if kind is None:
        pytest.skip("this torch has no Muon")
    matrices = [value for value in model.parameters() if value.dim() == 2]
    return [kind(matrices, lr=0.1), SGD([v for v in model.parameters() if v.dim() < 2], 0.1)]


MAKERS: dict[str, Any] = {
    "Muon": muon,
    "LBFGS": lambda m: [LBFGS(m.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe")],
    "SAM": lambda m: [Sam(m.parameters(), SGD, lr=0.1, momentum=0.9)],
    "SAM of AdamW": lambda m: [Sam(m.parameters(), AdamW, lr=0.1)],
    "Restless": lambda m: [Restless(m.parameters(), 0.1, 0.9)],
    "Lookahead": lambda m: [Lookahead(AdamW(m.parameters(), 0.05))],
    "Adafactor": lambda m: [Adafactor(m.parameters(), 0.1)],
    "two of one": lambda m: [SGD(m.parameters(), 0.1), AdamW(m.parameters(), 0.1)],
}


@pytest.mark.parametrize(
    ("schedule", "regrowth"), [(RAMP, False), (Cyclic(), True)], ids=["ramp", "cyclic"]
)
@pytest.mark.parametrize("name", MAKERS)
def test_no_forward_pass_sees_an_unmasked_weight(name: str, regrowth: bool, schedule: Any) -> None:
    pruner, model = prepared(target=0.6, schedule=schedule, allow_regrowth=regrowth)
    optimizers = MAKERS[name](model)
    pruner.attach(*optimizers)
    with spied(pruner) as passes:
        for _ in range(8):
            for optimizer in optimizers:

                def closure(optimizer: Any = optimizer) -> Tensor:
                    optimizer.zero_grad()
                    loss = loss_of(model)
                    loss.backward()
                    return loss

                optimizer.step(closure)
                if pruner.step_count > 1:
                    assert_masked(pruner)
            pruner.step()
            loss_of(model)  # as a validation does
    assert len(passes) > 20
    for kept in masks(pruner).values():
        assert int((~kept).sum()) == int(0.6 * kept.numel())


def test_sam_by_two_calls() -> None:
    pruner, model = prepared(schedule=RAMP)
    optimizer = Sam(model.parameters(), Restless, lr=0.1)
    pruner.attach(optimizer)
    with spied(pruner):
        for _ in range(8):
            loss_of(model).backward()
            optimizer.first_step()
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.second_step()
            optimizer.zero_grad()
            pruner.step()


def test_a_hook_that_was_there_before_finds_masked_weights_after_the_step() -> None:
    pruner, model = prepared()
    optimizer = Restless(model.parameters(), 0.1)
    looked = []

    def average(*_: Any) -> None:
        assert_masked(pruner)
        looked.append(True)

    optimizer.register_step_post_hook(average)
    pruner.attach(optimizer)
    loss_of(model).backward()
    optimizer.step()
    assert looked


def test_weights_that_an_optimizer_is_given_later() -> None:
    pruner, model = prepared()
    optimizer = SGD([model[0].bias], 0.1)
    pruner.attach(optimizer)  # none of them is pruned
    optimizer.add_param_group({"params": [model[0].weight], "weight_decay": 0.1})
    optimizer.add_param_group({"params": [model[2].weight], "momentum": 0.9})
    stepped(pruner, model, optimizer, steps=3)
    assert_masked(pruner)


def test_a_group_whose_parameters_are_replaced_by_as_many() -> None:
    pruner, model = prepared()
    optimizer = Restless(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer)
    state = {name: value.clone() + 1 for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    optimizer.step(lambda: loss_of(model))  # it still has the old ones
    optimizer.param_groups[0]["params"] = list(model.parameters())
    loss_of(model).backward()
    optimizer.step()
    assert_masked(pruner)
    loss_of(model).backward()
    assert_masked(pruner, gradients=True)


def test_the_state_of_a_dense_training_is_taken_without_its_momentum_of_pruned_weights() -> None:
    dense = net()
    theirs = AdamW(dense.parameters(), 0.1)
    for _ in range(3):
        loss_of(dense).backward()
        theirs.step()
    pruner, model = prepared()
    optimizer = AdamW(model.parameters(), 0.1)
    pruner.attach(optimizer)
    stepped(pruner, model, optimizer, steps=2)
    optimizer.load_state_dict(copy.deepcopy(theirs.state_dict()))
    loss_of(model).backward()
    optimizer.step()
    assert_masked(pruner)
    for tensor in pruned_tensors(model):
        for key in ("exp_avg", "exp_avg_sq"):
            moments = optimizer.state[tensor.original][key]
            assert not moments[~tensor.impl.mask].any()
            assert moments.any()


def test_a_weight_comes_back_as_it_left_and_without_momentum() -> None:
    model = nn.Linear(4, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])

    class OnAndOff:
        def compute_sparsity(self, step: int, target: float, prev: float | None = None) -> float:
            return target if step == 2 else 0.0

    pruner, _ = prepared(model, 0.25, OnAndOff())
    optimizer = SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
    pruner.attach(optimizer)
    for _ in range(2):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        left = float(model.weight.detach()[0, 0])
        pruner.step()
    assert float(model.weight.detach()[0, 0]) == 0.0
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    pruner.step()
    assert float(model.weight.detach()[0, 0]) == left
    assert float(optimizer.state[model.weight]["momentum_buffer"][0, 0]) == 0.0


@pytest.mark.parametrize("wrong", [object(), nn.Linear(2, 2), "SGD"])
def test_what_is_no_optimizer_is_refused(wrong: Any) -> None:
    pruner, _ = prepared()
    with pytest.raises(TypeError, match="allowed: an optimizer of torch"):
        pruner.attach(wrong)


def test_what_holds_an_optimizer_is_served_with_it() -> None:
    class Wrapper:
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

    pruner, model = prepared()
    inner = Restless(model.parameters(), 0.1)
    pruner.attach(Wrapper(inner), inner)  # type: ignore[arg-type]
    loss_of(model, INPUTS).backward()
    inner.step()
    assert_masked(pruner)
    assert len(inner._optimizer_step_post_hooks) == 1
    pruner.detach()
    assert not inner._optimizer_step_post_hooks
    assert not inner._optimizer_step_pre_hooks
