"""Masks against a plain reference: counts, ties, nesting, dtypes, devices."""

from math import floor, inf, isnan, nan
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coreai_opt.pruning.masks.of_scores import (
    compute_mask,
    prune_count,
    unstructured_mask,
)
from coreai_opt.pruning.spec import PruningScheme, Unstructured
from tests.helpers.pruning.mask_values import DTYPES, Elsewhere

DENORMAL = {dtype: torch.finfo(dtype).smallest_normal / 4 for dtype in DTYPES}


def reference(scores: Tensor, sparsity: float) -> list[bool]:
    """Sort by score, then by index; the first ones are pruned."""
    values = [inf if isnan(value) else value for value in scores.double().flatten().tolist()]
    order = sorted(range(len(values)), key=lambda index: (values[index], index))
    pruned = set(order[: floor(len(values) * sparsity)])
    return [index not in pruned for index in range(len(values))]


@st.composite
def scores(draw: st.DrawFn, dtypes: list[torch.dtype] = DTYPES) -> Tensor:
    """A tensor of up to four dimensions with values that make selection hard."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.lists(st.integers(0, 5), max_size=4).map(tuple))
    size = torch.Size(shape).numel()
    edge = [0.0, -0.0, DENORMAL[dtype], -DENORMAL[dtype], 1.0, inf, -inf, nan]
    pool = draw(
        st.sampled_from(
            [
                st.sampled_from([1.0, 2.0, 3.0]),
                st.sampled_from(edge),
                st.floats(width=16),
                st.just(draw(st.sampled_from(edge))),
            ]
        )
    )
    values = draw(st.lists(pool, min_size=size, max_size=size))
    arranged = draw(st.sampled_from(["drawn", "sorted", "reversed"]))
    if arranged != "drawn":
        values = sorted(values, reverse=arranged == "reversed")
    return torch.tensor(values, dtype=dtype).reshape(shape)


SPARSITIES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9, 1.0]))
thoroughly = settings(max_examples=300, deadline=None)


@thoroughly
@given(scores(), SPARSITIES)
def test_the_mask_is_that_of_a_stable_sort(values: Tensor, sparsity: float) -> None:
    before = values.clone()
    mask = unstructured_mask(values, sparsity)
    assert (mask.dtype, mask.shape) == (torch.bool, values.shape)
    assert mask.flatten().tolist() == reference(values, sparsity)
    assert torch.equal(values.isnan(), before.isnan())
    assert torch.equal(values.nan_to_num(), before.nan_to_num())


@thoroughly
@given(scores(), SPARSITIES)
def test_the_path_of_other_devices_gives_the_same_mask(values: Tensor, sparsity: float) -> None:
    there = unstructured_mask(values.as_subclass(Elsewhere), sparsity)
    assert there.flatten().tolist() == reference(values, sparsity)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [Tensor, Elsewhere])
def test_counts_are_exact_among_more_ties_than_the_dtype_can_count(
    dtype: torch.dtype, kind: type[Tensor]
) -> None:
    values = torch.ones(70_001, dtype=dtype).as_subclass(kind)
    mask = unstructured_mask(values, 0.9).as_subclass(Tensor)
    assert int((~mask).sum()) == 63_000
    assert not mask[:63_000].any()


WORKED = [
    pytest.param([3.0, 1.0, 1.0, 1.0], 0.5, [1, 0, 0, 1], id="ties-lowest-index-first"),
    pytest.param([1.0, 1.0, 1.0, 1.0], 0.75, [0, 0, 0, 1], id="all-equal"),
    pytest.param([0.0, -0.0, 0.0, -0.0], 0.5, [0, 0, 1, 1], id="zeros-of-both-signs-tie"),
    pytest.param([2.0, 1.0, 2.0, 1.0, 2.0], 0.6, [0, 0, 1, 0, 1], id="ties-and-below"),
    pytest.param([nan, 5.0, nan, 1.0], 0.5, [1, 0, 1, 0], id="nan-is-highest"),
    pytest.param([nan, inf, nan, 1.0], 0.5, [0, 1, 1, 0], id="nan-ties-with-infinity"),
    pytest.param([nan, nan, nan, nan], 0.5, [0, 0, 1, 1], id="nan-only"),
    pytest.param([-inf, inf, 0.0, 1.0], 0.25, [0, 1, 1, 1], id="infinities-are-ordered"),
    pytest.param([1.0, 2.0, 3.0, 4.0], 0.74, [0, 0, 1, 1], id="rounded-down"),
    pytest.param([4.0, 3.0, 2.0, 1.0], 0.25, [1, 1, 1, 0], id="reversed"),
    pytest.param([1.0, 2.0, 3.0], 0.0, [1, 1, 1], id="nothing"),
    pytest.param([1.0, 2.0, 3.0], 1.0, [0, 0, 0], id="everything"),
    pytest.param([1.0, 2.0, 3.0], 0.33, [1, 1, 1], id="too-little-for-one"),
    pytest.param([nan, 2.0, 3.0], 1.0, [0, 0, 0], id="everything-and-nan"),
]


@pytest.mark.parametrize(("values", "sparsity", "expected"), WORKED)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_worked_mask(
    values: list[float], sparsity: float, expected: list[int], dtype: torch.dtype
) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    assert unstructured_mask(tensor, sparsity).int().tolist() == expected
    assert unstructured_mask(tensor.as_subclass(Elsewhere), sparsity).int().tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_denormals_are_told_from_zero(dtype: torch.dtype) -> None:
    small = DENORMAL[dtype]
    tensor = torch.tensor([small, 0.0, 2 * small, 0.0], dtype=dtype)
    assert unstructured_mask(tensor, 0.75).tolist() == [False, False, True, False]


def test_indices_are_those_of_the_shape_and_not_of_the_memory() -> None:
    turned = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]).t()
    assert unstructured_mask(turned, 0.5).tolist() == [[0, 0], [0, 1], [1, 1]]
    last = torch.ones(1, 2, 2, 2).to(memory_format=torch.channels_last)
    assert unstructured_mask(last, 0.5).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("sparsity", [-0.01, 1.01, nan, inf, -inf])
@pytest.mark.parametrize("values", [torch.ones(4), torch.empty(0)])
def test_a_sparsity_outside_0_to_1_is_refused(values: Tensor, sparsity: float) -> None:
    with pytest.raises(ValueError, match=f"sparsity is {sparsity}"):
        unstructured_mask(values, sparsity)
    with pytest.raises(ValueError, match=f"sparsity is {sparsity}"):
        compute_mask(values, sparsity, Unstructured())


COUNTS = [(10, 0.19, 1), (10, 0.2, 2), (7, 0.5, 3), (9, 0.999, 8), (0, 0.5, 0), (0, 1, 0)]


@pytest.mark.parametrize(("total", "sparsity", "expected"), [*COUNTS, (5, 0, 0), (5, 1, 5)])
def test_prune_count_rounds_down(total: int, sparsity: float, expected: int) -> None:
    assert prune_count(total, sparsity) == expected


def test_compute_mask_takes_the_scores_as_they_are() -> None:
    values = torch.tensor([-3.0, 2.0, -1.0, 0.5])
    assert compute_mask(values, 0.5, Unstructured()).tolist() == [False, True, False, True]


class Unheard(PruningScheme):
    """A scheme that nobody has written masks for."""


@pytest.mark.parametrize("scheme", [Unheard(), None, "unstructured"])
def test_an_unknown_scheme_is_a_type_error(scheme: Any) -> None:
    with pytest.raises(TypeError, match="Unheard" if isinstance(scheme, Unheard) else str(scheme)):
        compute_mask(torch.ones(4), 0.5, scheme)
