"""What happens between a backward pass and a step, within a closure, and where nothing returns."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RAdam, RMSprop, adam

from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning import same
from tests.helpers.pruning.optimizers import (
    OPTIMIZERS,
    RAMP,
    Drift,
    Make,
    dense,
    masks,
    moments,
    pruner_of,
    train,
)

pytestmark = pytest.mark.usefixtures("any_size")

MORE: list[Any] = [
    pytest.param(lambda p: Adadelta(p, 1.0), id="adadelta"),
    pytest.param(lambda p: RAdam(p, 0.1, weight_decay=0.1), id="radam-decay"),
    pytest.param(lambda p: Adam(p, 0.1, fused=True), id="adam-fused"),
    pytest.param(lambda p: AdamW(p, 0.1, maximize=True), id="adamw-maximize"),
    pytest.param(lambda p: Adagrad(p, 0.1, initial_accumulator_value=0.5), id="adagrad-0.5"),
    pytest.param(lambda p: Adam(p, 0.1, eps=0), id="adam-eps-0"),
    pytest.param(lambda p: RMSprop(p, 0.1, eps=0, weight_decay=0.1), id="rmsprop-eps-0"),
    pytest.param(lambda p: torch.optim.Rprop(p), id="rprop"),
    pytest.param(lambda p: torch.optim.ASGD(p, weight_decay=0.1), id="asgd"),
    pytest.param(lambda p: Drift(p, 0.1, momentum=0.9, weight_decay=0.1), id="unknown-decay"),
]


def pruned_values(pruner: Any) -> list[Tensor]:
    return [
        each.original.detach()[~each.impl.mask].clone() for each in pruned_tensors(pruner.model)
    ]


def gradients_of(pruner: Any, scale: float = 1.0) -> None:
    pruner.model.zero_grad()
    batch = torch.randn(7, 6).to(dense(pruner)[0].dtype)
    loss = (pruner.model(batch) - batch[:, :5] ** 2).square().mean()
    (scale * loss).backward()


def check_what_is_pruned_stays(pruner: Any, optimizer: Optimizer) -> None:
    pruner.step(5)
    before = pruned_values(pruner)
    for step in range(4):
        train(pruner, optimizer, step)
        assert same(pruned_values(pruner), before)


@pytest.mark.parametrize(
    ("make", "allocation"),
    [
        pytest.param(*one.values, ("uniform", "global")[index % 2], id=one.id)
        for index, one in enumerate([*OPTIMIZERS, *MORE])
    ],
)
def test_where_nothing_returns_all_that_is_pruned_is_0(make: Make, allocation: str) -> None:
    pruner = pruner_of(allocation=allocation, allow_regrowth=False)
    optimizer = make(pruner.model.parameters())
    pruner.mask_optimizer_state(optimizer)
    for step in range(12):
        train(pruner, optimizer, step)
        assert not any(bool(values.any()) for values in pruned_values(pruner))
        for weight, mask in zip(dense(pruner), masks(pruner), strict=True):
            assert not weight.grad[~mask].any()
        pruner.step()
        assert not any(bool(values.any()) for values in pruned_values(pruner))
    batch = torch.randn(7, 6)
    expected, weights = pruner.model(batch), [weight.detach().clone() for weight in dense(pruner)]
    model: Any = pruner.finalize()
    assert torch.equal(model(batch), expected)
    assert same([model[0].weight, model[2].weight], weights)


@pytest.mark.parametrize("make", MORE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_pruned_weights_stay_and_the_rest_moves(make: Make, dtype: torch.dtype) -> None:
    pruner = pruner_of()
    pruner.model.to(dtype)
    optimizer = make(pruner.model.parameters())
    pruner.mask_optimizer_state(optimizer)
    pruner.step(5)
    for _ in range(4):
        before, old = pruned_values(pruner), [each.detach().clone() for each in dense(pruner)]
        gradients_of(pruner, 30.0)
        optimizer.step()
        assert same(pruned_values(pruner), before)
        for weight, was, mask in zip(dense(pruner), old, masks(pruner), strict=True):
            assert (weight != was)[mask].any()
            for moment in moments(optimizer, weight):
                assert not moment[~mask].any()


CLOSURES = ["positional", "keyword"]


@pytest.mark.parametrize("make", [OPTIMIZERS[3], *MORE[:2], pytest.param(LBFGS, id="lbfgs")])
@pytest.mark.parametrize("given", CLOSURES)
def test_gradients_that_come_with_a_closure(make: Make, given: str) -> None:
    pruner = pruner_of()
    optimizer = make(list(pruner.model.parameters()))
    pruner.mask_optimizer_state(optimizer)
    pruner.step(5)
    batch = torch.randn(7, 6)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (pruner.model(batch) - batch[:, :5] ** 2).square().mean()
        loss = loss + 0.1 * sum(weight.square().sum() for weight in dense(pruner))
        loss.backward()
        return loss

    for _ in range(3):
        before, old = pruned_values(pruner), dense(pruner)[0].detach().clone()
        step: Any = optimizer.step
        step(closure) if given == "positional" else step(closure=closure)
        assert same(pruned_values(pruner), before)
        assert (dense(pruner)[0] != old).any()
    assert pruner._masking is not None
    assert pruner._masking._guarded == []


def noise(weight: nn.Parameter) -> None:
    assert weight.grad is not None
    weight.grad.add_(1.0)


def replaced(weight: nn.Parameter) -> None:
    weight.grad = torch.ones_like(weight)


def expanded(weight: nn.Parameter) -> None:
    weight.grad = torch.ones(()).expand_as(weight)


def turned(weight: nn.Parameter) -> None:
    weight.grad = torch.ones_like(weight.t()).t()


def clipped(weight: nn.Parameter) -> None:
    nn.utils.clip_grad_norm_([weight], 1e-3)
    noise(weight)


def zeroed(weight: nn.Parameter) -> None:
    assert weight.grad is not None
    weight.grad.zero_()
    weight.square().sum().backward()


@pytest.mark.parametrize("change", [noise, replaced, expanded, turned, clipped, zeroed])
@pytest.mark.parametrize(
    ("make", "regrowth"), [(OPTIMIZERS[3].values[0], True), (OPTIMIZERS[8].values[0], False)]
)
def test_a_gradient_that_is_changed_before_the_step(
    change: Any, make: Make, regrowth: bool
) -> None:
    pruner = pruner_of(allow_regrowth=regrowth)
    optimizer = make(pruner.model.parameters())
    pruner.mask_optimizer_state(optimizer)
    pruner.step(5)
    for _ in range(3):
        gradients_of(pruner)
        for weight in dense(pruner):
            change(weight)
        before, old = pruned_values(pruner), [each.detach().clone() for each in dense(pruner)]
        optimizer.step()
        assert same(pruned_values(pruner), before)
        for weight, was, mask in zip(dense(pruner), old, masks(pruner), strict=True):
            assert (weight != was)[mask].all()


@pytest.mark.parametrize("make", [OPTIMIZERS[3], OPTIMIZERS[6], OPTIMIZERS[7], MORE[1]])
def test_a_decay_that_comes_and_goes(make: Make) -> None:
    pruner = pruner_of()
    optimizer = make(pruner.model.parameters())
    pruner.mask_optimizer_state(optimizer)
    pruner.step(5)
    before = pruned_values(pruner)
    for step, decay in enumerate(itertools.islice(itertools.cycle([0.0, 0.5, 0.5, 0.0]), 9)):
        optimizer.param_groups[0]["weight_decay"] = decay
        train(pruner, optimizer, step)
        assert same(pruned_values(pruner), before)
        for weight, mask in zip(dense(pruner), masks(pruner), strict=True):
            assert not any(moment[~mask].any() for moment in moments(optimizer, weight))


def test_groups_with_and_without_decay() -> None:
    pruner = pruner_of()
    first, second = dense(pruner)
    groups: Any = [{"params": [first], "weight_decay": 0.5}, {"params": [second]}]
    optimizer = AdamW(groups, 0.1, weight_decay=0.0)
    pruner.mask_optimizer_state(optimizer)
    check_what_is_pruned_stays(pruner, optimizer)


class Fails(SGD):
    """Its steps fail when they are told to, after they have moved something."""

    fails = False

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        if self.fails:
            raise OverflowError
        return result


@pytest.mark.parametrize("kind", [SGD, Fails, AdamW])
def test_a_step_that_raises_does_not_spoil_the_next(kind: type[Optimizer]) -> None:
    pruner = pruner_of()
    optimizer: Any = kind(pruner.model.parameters(), lr=0.1, weight_decay=0.1)  # type: ignore[call-arg]
    pruner.mask_optimizer_state(optimizer)
    pruner.step(5)

    def failing() -> float:
        raise OverflowError

    for step in range(6):
        gradients_of(pruner)
        optimizer.fails = True
        with pytest.raises(OverflowError):
            optimizer.step() if kind is Fails else optimizer.step(failing)
        optimizer.fails = False
        before = pruned_values(pruner)
        train(pruner, optimizer, step)
        assert same(pruned_values(pruner), before)


class Outer(Drift):
    """A step around a step around a step: each calls the hooks."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self._drift()
        super().step(closure)
        super().step(closure)
        self._drift()


def test_steps_within_steps() -> None:
    pruner = pruner_of()
    optimizer = Outer(pruner.model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    pruner.mask_optimizer_state(optimizer)
    check_what_is_pruned_stays(pruner, optimizer)
    assert pruner._masking is not None
    assert pruner._masking._guarded == []


def test_another_optimizer_steps_within_a_closure() -> None:
    pruner = pruner_of()
    first, second = dense(pruner)
    inner = SGD([second], 0.1, momentum=0.9, weight_decay=0.1)
    outer = Adam([first], 0.1, weight_decay=0.1)
    pruner.mask_optimizer_state(inner, outer)
    pruner.step(5)
    before = pruned_values(pruner)

    def closure() -> float:
        gradients_of(pruner)
        inner.step()
        return 0.0

    for _ in range(3):
        outer.step(closure)
        assert same(pruned_values(pruner), before)


@pytest.mark.parametrize(
    ("make", "assign"), [(OPTIMIZERS[1].values[0], True), (OPTIMIZERS[10].values[0], False)]
)
def test_masks_that_are_loaded_under_a_running_optimizer(make: Make, assign: bool) -> None:
    source, pruner = pruner_of(), pruner_of()
    source.step(9)
    optimizer = make(pruner.model.parameters())
    pruner.mask_optimizer_state(optimizer)
    for step in range(3):
        train(pruner, optimizer, step)  # moments for all
    for each, theirs in zip(
        pruned_tensors(pruner.model), pruned_tensors(source.model), strict=True
    ):
        state = {name: value.clone() for name, value in theirs.impl.state_dict().items()}
        each.impl.load_state_dict(state, assign=assign)
    before = pruned_values(pruner)
    for step in range(3):
        train(pruner, optimizer, step)
        assert same(pruned_values(pruner), before)
    assert [values.numel() for values in before] == [38, 32]


def test_a_schedule_that_starts_late_protects_from_its_first_mask_on() -> None:
    pruner = pruner_of(RAMP.model_copy(update={"begin_step": 3}))
    optimizer = SGD(pruner.model.parameters(), 0.1, momentum=0.9)
    pruner.mask_optimizer_state(optimizer)
    for step in range(14):
        before, known = dense(pruner)[0].detach().clone(), masks(pruner)[0]
        train(pruner, optimizer, step)
        assert torch.equal(dense(pruner)[0][~known], before[~known])
        pruner.step()
    assert int((~masks(pruner)[0]).sum()) == 38


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("regrowth", [True, False])
def test_a_capturable_optimizer_whose_rate_begins_at_0(
    foreach: bool, regrowth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch offers it for GPUs only; the arithmetic is the same here.
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])
    pruner = pruner_of(allow_regrowth=regrowth)
    pruner.step(5)
    rate = torch.tensor(0.0)
    optimizer = Adam(pruner.model.parameters(), rate, capturable=True, foreach=foreach)
    pruner.mask_optimizer_state(optimizer)
    before = pruned_values(pruner)
    for step in range(3):
        train(pruner, optimizer, step)
        assert same(pruned_values(pruner), before)
        rate.fill_(0.1)
