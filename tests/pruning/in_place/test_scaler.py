"""A gradient scaler that skips steps: clock, masks and what criteria see."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import SGD, AdamW

from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruneImplBase
from tests.helpers.pruning.in_place import (
    INPUTS,
    RAMP,
    assert_masked,
    loss_of,
    masks,
    net,
    prepared,
)


class Watching(PruneImplBase):
    """Keeps what it is shown."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[Tensor] = []

    def score(self, weight: Tensor) -> Tensor:
        return weight.abs()

    def see_gradient(self, weight: Tensor, gradient: Tensor) -> None:
        self.seen.append(gradient.clone())


def whole_gradient(model: Any, parts: int) -> Tensor:
    twin = net()
    twin.load_state_dict(model.state_dict())
    for part in INPUTS.chunk(parts):
        loss_of(twin, part).backward()
    gradient = twin[0].weight.grad
    assert gradient is not None
    return gradient


KINDS = [
    pytest.param(lambda weights: SGD(weights, 0.1), id="sgd"),
    pytest.param(lambda weights: AdamW(weights, 0.01), id="unfused"),
    pytest.param(lambda weights: AdamW(weights, 0.01, fused=True), id="fused"),
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("parts", "unscales", "set_to_none"), [(1, True, True), (2, False, True), (2, True, False)]
)
def test_skipped_steps(make: Any, parts: int, unscales: bool, set_to_none: bool) -> None:
    pruner, model = prepared(schedule=RAMP, algo=Watching)
    optimizer = make(model.parameters())
    scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    pruner.attach(optimizer, scaler=scaler)
    impl: Any = next(pruned_tensors(model)).impl
    steps = 0
    for turn in range(10):
        wanted = whole_gradient(model, parts)
        before = [value.detach().clone() for value in model.parameters()]
        for index, part in enumerate(INPUTS.chunk(parts)):
            loss = loss_of(model, part)
            overflows = turn in (0, 3, 4) and index == 0
            scaler.scale(loss * torch.inf if overflows else loss).backward()
        if unscales:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e6)
        impl.seen.clear()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped = turn in (0, 3, 4)
        assert all(map(torch.equal, before, model.parameters())) == skipped
        assert (scaler.get_scale() < scale) == skipped
        optimizer.zero_grad(set_to_none)
        if skipped:
            assert not impl.seen
        else:
            (seen,) = impl.seen
            torch.testing.assert_close(seen, wanted)
            pruner.step()
            steps += 1
        if steps > 1:
            assert_masked(pruner)
        for tensor in pruned_tensors(model):
            for moment in optimizer.state.get(tensor.original, {}).values():
                if moment is not None and moment.dim():
                    assert not moment[~masks(pruner)[tensor.name]].any()
    assert pruner.step_count == steps == 7
    assert pruner.at_target()


def test_two_optimizers_of_which_one_has_a_scaler() -> None:
    pruner, model = prepared(algo=Watching)
    scaled, plain = SGD(model[0].parameters(), 0.1), SGD(model[2].parameters(), 0.1)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    pruner.attach(scaled, scaler=scaler)
    pruner.attach(plain)
    loss_of(model).backward(inputs=list(model[2].parameters()))
    plain.step()
    wanted = whole_gradient(model, 1)
    scaler.scale(loss_of(model)).backward(inputs=list(model[0].parameters()))
    scaler.step(scaled)
    impl: Any = next(pruned_tensors(model)).impl
    torch.testing.assert_close(impl.seen, [wanted])


def test_a_step_that_is_left_out_leaves_nothing_behind_for_criteria() -> None:
    """A user looks at a loss and goes on with the next batch."""
    pruner, model = prepared(algo=Watching)
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    impl: Any = next(pruned_tensors(model)).impl
    for set_to_none in (True, False):
        (loss_of(model) * 1e6).backward()
        optimizer.zero_grad(set_to_none)
        wanted = whole_gradient(model, 1)
        loss_of(model).backward()
        optimizer.step()
        torch.testing.assert_close(impl.seen[-1], wanted)
        optimizer.zero_grad()
