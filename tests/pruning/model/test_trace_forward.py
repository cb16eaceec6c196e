"""Running a model once to see which ops it calls: nothing is left behind, all is counted."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coreai_opt.pruning.model.operations import trace_forward, uses_by_call


class Noisy(nn.Module):
    """All that a forward pass may leave behind."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4, track_running_stats=True)
        self.drop = nn.Dropout(0.5).eval()
        self.seen: list[tuple[bool, bool]] = []
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.register_buffer("cache", torch.zeros(0, 4))
        self.register_buffer("late", None)

    def forward(self, batch: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled()))
        self.count += 1
        self.cache = torch.cat([self.cache, batch])
        self.late = torch.rand(1)
        batch = F.batch_norm(batch, self.norm.running_mean, self.norm.running_var, training=True)
        batch = F.dropout(self.layer(batch))
        if self.fails:
            raise ValueError("no such batch")
        return self.norm(batch)


@pytest.mark.parametrize("fails", [False, True], ids=["runs", "fails"])
def test_a_model_that_is_followed_is_left_as_it_was(fails: bool) -> None:
    model = Noisy(fails)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = {name: id(value) for name, value in model.named_buffers()}
    random = torch.random.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    batch = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    expected = pytest.raises(ValueError, match="no such batch") if fails else nullcontext()
    with expected:
        uses_by_call(model, batch)
    assert model.seen == [(False, False)]
    assert [m.training for m in (model, model.layer, model.drop)] == [True, True, False]
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name: id(value) for name, value in model.named_buffers()} == buffers
    assert (model.count, model.late, tuple(model.cache.shape)) == (0, None, (0, 4))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert all(parameter.grad is None for parameter in model.parameters())
    for part in model.modules():
        assert len(part._forward_hooks) == len(part._forward_pre_hooks) == 0


class Forgiving(nn.Module):
    """Goes on where a layer has failed."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = nn.Linear(9, 9)
        self.kernel = nn.Parameter(torch.rand(4, 4))

    def forward(self, batch: Tensor) -> Tensor:
        try:
            return self.broken(batch)
        except RuntimeError:
            return F.linear(batch, self.kernel)


def test_a_layer_that_fails_is_not_the_caller_of_what_comes_after() -> None:
    (call,) = trace_forward(Forgiving(), torch.rand(3, 4))
    assert (call.caller, call.op_name) == ("", "linear")


CALLS: list[Any] = [
    pytest.param(nn.Linear(6, 4), (2, 3, 6), 6 * 4 * 6, id="linear"),
    pytest.param(nn.Conv2d(3, 4, 2), (2, 3, 5, 5), 48 * 2 * 16, id="conv2d"),
    pytest.param(nn.Conv2d(4, 4, 2, groups=2), (1, 4, 3, 3), 32 * 4, id="groups"),
    pytest.param(nn.ConvTranspose1d(3, 4, 2, stride=2), (2, 3, 5), 24 * 2 * 5, id="transposed"),
]


@pytest.mark.parametrize(("layer", "shape", "expected"), CALLS)
def test_multiplications_are_counted(layer: nn.Module, shape: Any, expected: int) -> None:
    (call,) = trace_forward(layer, torch.rand(shape))
    ((state, weight, count),) = call.weights
    assert (state, weight is layer.weight, count) == ("weight", True, expected)


def test_multiplications_of_attention_are_counted_by_projection() -> None:
    query, key, value = torch.rand(3, 2, 6), torch.rand(5, 2, 4), torch.rand(5, 2, 2)
    (call,) = trace_forward(nn.MultiheadAttention(6, 2, kdim=4, vdim=2), (query, key, value))
    assert [count for _, _, count in call.weights] == [36 * 6, 24 * 10, 12 * 10, 36 * 6]
    (call,) = trace_forward(
        nn.MultiheadAttention(6, 2), (query, torch.rand(5, 2, 6), torch.rand(5, 2, 6))
    )
    assert [count for _, _, count in call.weights] == [36 * (6 + 10 + 10), 36 * 6]
