"""Putting masks on tensors, bit for bit, and what is counted on the way."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coreai_opt.pruning.masks import masking
from coreai_opt.pruning.masks.masking import (
    INTEGERS,
    mask_in_place,
    masked,
    put_back,
)
from coreai_opt.pruning.masks.selection import count_true, has_nan
from tests.helpers.pruning.mask_values import DTYPES, Elsewhere

EDGES = [0.0, -0.0, 1.5, -2.0, torch.inf, -torch.inf, torch.nan, -torch.nan, 1e-45, 65504.0]
AT_ONCE = 8
SHAPES = [(), (0,), (0, 3), (1,), (7,), (8,), (9,), (16,), (17,), (3, 1, 5), (2, 3, 4, 2), (1, 1)]


@pytest.fixture(autouse=True, params=[0, masking.SMALL], ids=["as-large", "as-small"])
def _few_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "AT_ONCE", AT_ONCE)
    monkeypatch.setattr(masking, "SMALL", request.param)


def bits(tensor: Tensor) -> Tensor:
    integers = INTEGERS.get(tensor.dtype)
    plain = tensor.detach().clone().as_subclass(Tensor).contiguous()
    return plain if integers is None else plain.view(-1).view(integers)


def values_of(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    pool = torch.tensor(EDGES, dtype=torch.float64)
    return pool[torch.randint(len(EDGES), shape)].to(dtype).reshape(shape)


def turned(tensor: Tensor) -> Tensor:
    """Lay a tensor out in memory the other way round."""
    other = tuple(reversed(range(tensor.dim())))
    return tensor.permute(other).contiguous().permute(other)


ARRANGED: dict[str, Any] = {
    "as-it-is": lambda tensor: tensor,
    "turned": turned,
    "sliced": lambda tensor: torch.stack([tensor, tensor], -1)[..., 0],
    "elsewhere": lambda tensor: tensor.as_subclass(Elsewhere),
}


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int32, torch.int8], ids=str)
@pytest.mark.parametrize("values_in", ARRANGED)
@pytest.mark.parametrize("mask_in", ["as-it-is", "turned", "sliced"])
def test_masks_are_put_on_bit_for_bit(dtype: torch.dtype, values_in: str, mask_in: str) -> None:
    for shape in SHAPES:
        raw = torch.randint(-9, 9, shape).to(dtype)
        plain = values_of(shape, dtype) if dtype.is_floating_point else raw
        values = ARRANGED[values_in](plain.clone())
        mask = ARRANGED[mask_in](torch.rand(shape) < 0.5)
        before = ARRANGED["turned"](values_of(shape, torch.float32).nan_to_num(0, 9, -9).to(dtype))
        expected = bits(torch.where(mask, plain, torch.zeros((), dtype=dtype)))
        for old in (before, before.contiguous()):
            moved = ARRANGED[values_in](plain.clone())
            put_back(moved, mask, old)
            assert torch.equal(bits(moved), bits(torch.where(mask, plain, old)))
        result = masked(values, mask)
        assert (result.shape, result.dtype) == (plain.shape, dtype)
        assert torch.equal(bits(result), expected)
        mask_in_place(values, mask)
        assert torch.equal(bits(values), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_trained_is_masked_without_autograd(dtype: torch.dtype) -> None:
    leaf = nn.Parameter(values_of((3, 7), dtype))
    mask, version = torch.rand(3, 7) < 0.5, leaf._version
    mask_in_place(leaf, mask)
    assert (leaf.requires_grad, leaf.is_leaf, leaf._version) == (True, True, version)
    assert not bits(leaf).view(3, 7)[~mask].any()
    before = torch.full_like(leaf, 3.0)
    put_back(leaf, mask, before)
    assert bool((leaf[~mask] == 3).all())


def test_a_lazily_negated_tensor() -> None:
    conjugate = torch.randn(5, dtype=torch.complex64).conj()
    negated, mask = conjugate.imag, torch.tensor([True, False, True, True, False])
    assert negated.is_neg()
    expected = torch.where(mask, negated.resolve_neg(), 0)
    mask_in_place(negated, mask)
    assert torch.equal(negated, expected)


@given(
    st.sampled_from([*DTYPES, torch.int32, torch.bool]),
    st.lists(st.sampled_from(EDGES), max_size=20),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_nan_is_never_missed(dtype: torch.dtype, numbers: list[float], twice: bool) -> None:
    whole = [0.0 if not -1e4 < number < 1e4 else number for number in numbers]
    tensor = torch.tensor(numbers if dtype.is_floating_point else whole).to(dtype)
    tensor = torch.stack([tensor, tensor], 1)[:, 0] if twice else tensor
    found = has_nan(tensor)
    assert found.shape == ()
    if tensor.isnan().any():
        assert bool(found)
    if tensor.isfinite().all():
        assert not found


def test_half_precision_does_not_overflow_in_the_sum() -> None:
    largest = torch.finfo(torch.float16).max
    assert not has_nan(torch.tensor([largest] * 60 + [-largest] * 60, dtype=torch.float16))
    # Nor would a float32 say NaN where one sign alone overflows.
    assert not has_nan(torch.full((60,), torch.finfo(torch.float32).max))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arranged", ["as-it-is", "turned", "sliced"])
def test_true_is_counted(shape: tuple[int, ...], arranged: str) -> None:
    mask = ARRANGED[arranged](torch.rand(shape) < 0.5)
    assert count_true(mask) == int(mask.sum())
    assert type(count_true(mask)) is int
    far = count_true(mask.as_subclass(Elsewhere))
    assert isinstance(far, Tensor)
    assert int(far) == int(mask.sum())
    assert isinstance(count_true(torch.ones(3, dtype=torch.bool, device="meta")), Tensor)
