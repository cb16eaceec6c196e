"""Masks of many small tensors at once are those of each by itself."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePruner,
    MagnitudePrunerConfig,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import DivergedWeightError
from coreai_opt.pruning.masks.selection import Magnitude, keep_largest_of_each
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning.mask_values import KINDS, Far, reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@st.composite
def many_rows(draw: st.DrawFn) -> tuple[Tensor, Tensor | None]:
    """Rows of hard values, with and without what was kept before."""
    torch.manual_seed(draw(st.integers(0, 2**20)))
    size = draw(st.sampled_from([2, 3, 40, 300]))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5))
    rows = torch.stack([KINDS[kind](size) for kind in kinds]).to(draw(st.sampled_from(DTYPES)))
    kept = torch.rand(rows.shape) < draw(st.floats(0, 1)) if draw(st.booleans()) else None
    return rows, kept


@given(many_rows(), st.lists(st.floats(0, 1), min_size=1, max_size=4), st.floats(0, 0.1))
@settings(max_examples=300, deadline=None)
def test_each_row_has_the_mask_of_a_stable_sort(
    drawn: tuple[Tensor, Tensor | None], shares: list[float], move: float
) -> None:
    rows, kept = drawn
    for share in shares:
        pruned = int(rows.shape[1] * share)
        masks = keep_largest_of_each(rows, kept, pruned)
        for place, row in enumerate(rows):
            alone = Magnitude(row, None if kept is None else kept[place]).tensor()
            assert torch.equal(masks[place], reference([alone], pruned)[0])
        rows = rows + (torch.rand(rows.shape) * move).to(rows.dtype)


@pytest.mark.parametrize("many", [2, 1 << 20], ids=["by-cut", "by-sort"])
@given(many_rows(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_on_a_device_as_well(many: int, drawn: tuple[Tensor, Tensor | None], share: float) -> None:
    rows, kept = drawn
    pruned = int(rows.shape[1] * share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coreai_opt.pruning.masks.device_selection.MANY", many)
        masks = keep_largest_of_each(rows.as_subclass(Far), kept, pruned).as_subclass(Tensor)
    for place, row in enumerate(rows):
        alone = Magnitude(row, None if kept is None else kept[place]).tensor()
        assert torch.equal(masks[place], reference([alone], pruned)[0])


class MyMagnitudes(nn.Module):
    """Twelve layers alike, and each in a shape of its own."""

    def __init__(self, alike: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        weights = [torch.randn(6, 10) for _ in range(12)]
        shapes = [(6, 10)] * 12 if alike else [(60 // n, n) for n in (1, 2, 3, 4, 5, 6)] * 2
        self.layers = nn.ModuleList(nn.Linear(n, m, bias=False) for m, n in shapes)
        for layer, weight, shape in zip(self.layers, weights, shapes, strict=True):
            layer.weight.data = weight.view(shape)


@pytest.mark.parametrize("way", [InPlacePruner, MagnitudePruner])
@pytest.mark.parametrize("regrowth", [True, False])
def test_a_ramp_has_the_masks_and_counts_of_each_by_itself(way: Any, regrowth: bool) -> None:
    found = []
    for alike in (True, False):
        model = MyMagnitudes(alike)
        ramp = PolynomialDecaySchedule(total_iters=10, power=1)
        config = MagnitudePrunerConfig.uniform(0.8, ramp)
        config.allow_regrowth = regrowth
        pruner = way(model, config)
        pruner.prepare()
        for step in range(12):
            pruner.step()
            generator = torch.Generator().manual_seed(step)
            for tensor in pruned_tensors(model):
                noise = torch.randn(60, generator=generator).view(tensor.shape)
                tensor.original.data += noise * (tensor.impl.mask if way is InPlacePruner else 1)
        found.append([(t.impl.mask.flatten(), t.impl.regrown) for t in pruned_tensors(model)])
    for (mask, regrown), (other, count) in zip(*found, strict=True):
        assert torch.equal(mask, other)
        assert regrown == count
    assert any(regrown for _, regrown in found[0]) == regrowth


def test_nan_in_one_of_many_is_named() -> None:
    model: Any = nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)])
    pruner = InPlacePruner(
        model, MagnitudePrunerConfig.uniform(0.5, PolynomialDecaySchedule(total_iters=4))
    )
    pruner.prepare()
    with torch.no_grad():
        model[3].weight[1, 1] = torch.nan
        model[1].weight[0, 0] = torch.inf
        model[1].weight[0, 1] = -torch.inf
    with pytest.raises(DivergedWeightError, match=r"3\.weight") as raised:
        pruner.step()
    assert "1.weight" not in str(raised.value)
    assert not any(tensor.impl.sparsity for tensor in pruned_tensors(model))
