"""Which scores are the lowest, by a sample, a hint or a sort: always those of a stable sort."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.masks import device_selection as device
from coreai_opt.pruning.masks import host_selection as host
from coreai_opt.pruning.masks.host_selection import Hint
from coreai_opt.pruning.masks.of_scores import global_masks, unstructured_mask
from coreai_opt.pruning.masks.selection import Magnitude, Scores, keep_highest
from tests.helpers.pruning.mask_values import DTYPES, KINDS, Far, reference

INTEGERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
# Few, at once, many on the host, many on the device: as it is used, and for small tensors.
SMALL = [(0, 60, 50, 2), (3, 64, 1 << 20, 4), (1 << 17, 1 << 18, 1 << 20, 1 << 20)]


@pytest.fixture(params=SMALL, ids=["all-by-sample", "sampled", "as-it-is"])
def thresholds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, *request.param)


def _set(monkeypatch: pytest.MonkeyPatch, few: int, at_once: int, many: int, there: int) -> None:
    for module, name, value in (
        (host, "FEW", few),
        (host, "AT_ONCE", at_once),
        (host, "MANY", many),
        (device, "MANY", there),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, *SMALL[0])


def check(rows: Sequence[Scores], pruned: int, *same: Sequence[Scores]) -> None:
    """Compare with the reference: the rows, and what they are as tensors, on the host and off."""
    plain = [row.tensor() if isinstance(row, Magnitude) else row for row in rows]
    expected = reference(plain, pruned)
    far = [each.as_subclass(Far) for each in plain]
    for kind in (rows, plain, far, *same):
        found = keep_highest(kind, pruned)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.dtype is torch.bool
            assert torch.equal(mine.as_subclass(Tensor), theirs)


SHARES = [0.0, 0.02, 0.25, 0.5, 0.6, 0.97, 1.0]


def counts(total: int) -> list[int]:
    """Counts to prune: shares, and all but one and one."""
    return sorted({1, total - 1, *(int(total * share) for share in SHARES)})


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, DTYPES[(index + n) % 4]) for index, kind in enumerate(KINDS) for n in (0, 1)],
)
def test_hard_values(kind: str, dtype: torch.dtype) -> None:
    for size in (2, 131) if host.FEW < 1000 else (4200,):
        values = KINDS[kind](size).to(dtype)
        kept = torch.rand(size) < 0.5
        hint = Hint()
        for pruned in counts(size):
            check([values], pruned)
            check([Magnitude(values, kept, hint)], pruned, [Magnitude(values, kept)])
            check([Magnitude(values)], pruned)


@pytest.mark.usefixtures("by_sample")
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers(dtype: torch.dtype) -> None:
    values = torch.randint(0, 120, (333,)).to(dtype)
    for pruned in counts(333):
        check([values], pruned)
        check([values, values[:0], values.clone()], pruned)
        if dtype not in (torch.bool, torch.uint8):
            check([-values], pruned)
            check([Magnitude(-values)], pruned)
            check([Magnitude(-values, values > 60)], pruned)


@pytest.mark.usefixtures("by_sample")
def test_the_ends_of_integers() -> None:
    for dtype in (torch.int16, torch.int32):
        ends = torch.iinfo(dtype)
        values = torch.tensor([ends.max, ends.min, 0, ends.max, ends.min] * 40, dtype=dtype)
        for pruned in range(1, 200, 3):
            check([values], pruned)


@st.composite
def many_rows(draw: st.DrawFn) -> tuple[list[Scores], int]:
    """Rows of several sizes and shapes, of one dtype or several, with and without masks."""
    one = draw(st.sampled_from(DTYPES))
    mixed = draw(st.booleans())
    rows: list[Scores] = []
    torch.manual_seed(draw(st.integers(0, 2**20)))
    for _ in range(draw(st.integers(1, 5))):
        dtype = draw(st.sampled_from(DTYPES)) if mixed else one
        size = draw(st.sampled_from([0, 1, 2, 30, 200]))
        values = KINDS[draw(st.sampled_from(sorted(KINDS)))](max(size, 1))[:size].to(dtype)
        shape = draw(st.sampled_from([(size,), (1, size, 1), (size, 1)]))
        values = values.view(shape) if size else values
        if draw(st.booleans()):
            rows.append(values)
            continue
        kept = torch.rand(values.shape) < draw(st.floats(0, 1)) if draw(st.booleans()) else None
        rows.append(Magnitude(values, kept, Hint(draw(st.integers(0, 2**31)))))
    return rows, draw(st.integers(0, sum(row.numel() for row in rows)))


@pytest.mark.usefixtures("thresholds")
@given(many_rows())
@settings(max_examples=80, deadline=None)
def test_several_rows(drawn: tuple[list[Scores], int]) -> None:
    check(*drawn)


LAYOUTS: list[Any] = [
    pytest.param(lambda: torch.randn(30, 17).t(), id="transposed"),
    pytest.param(lambda: torch.randn(40, 33)[::2, 1::3], id="sliced"),
    pytest.param(lambda: torch.randn(9, 1).expand(9, 20), id="expanded"),
    pytest.param(
        lambda: torch.randn(5, 6, 3, 4).to(memory_format=torch.channels_last), id="channels-last"
    ),
    pytest.param(lambda: torch.randn(6, 5, 4).permute(2, 0, 1), id="permuted"),
    pytest.param(lambda: torch.randn(40, requires_grad=True), id="trained"),
    pytest.param(lambda: torch.nn.Parameter(torch.randn(40).half()), id="parameter"),
]


@pytest.mark.usefixtures("by_sample")
@pytest.mark.parametrize("make", LAYOUTS)
def test_layouts(make: Any) -> None:
    values = make()
    before = values.detach().clone()
    kept = values.detach() > 0
    turned = torch.empty_like(values.detach(), dtype=torch.bool).copy_(kept).contiguous()
    for pruned in counts(values.numel()):
        check([values], pruned)
        check([Magnitude(values, kept), Magnitude(values, turned)], pruned)
        check([Magnitude(values.detach().contiguous(), kept)], pruned)
    assert torch.equal(values.detach(), before)


HINTS = [
    *[Hint(cut, moved) for cut in (0, 1, 0x7BFF, 0x7C00, 0x7FFF, 0x7FFFFFFF) for moved in (0, 999)],
    *[Hint(2**63 - 1, 2**62), Hint(10**30, 10**30), Hint(500, 10**40), Hint(0x3C00, 0x7FFF)],
]


@pytest.mark.usefixtures("by_sample")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "zeros-at-the-cut", "nan", "equal", "infinities"])
def test_whatever_is_in_a_hint_the_mask_is_the_same(kind: str, dtype: torch.dtype) -> None:
    values = KINDS[kind](200).to(dtype)
    for kept in (None, torch.rand(200) < 0.5, torch.zeros(200, dtype=torch.bool)):
        plain = Magnitude(values, kept).tensor()
        expected = {pruned: reference([plain], pruned)[0] for pruned in (1, 100, 101, 150, 199)}
        for hint in HINTS:
            for pruned in (1, 100, 101, 150, 199):
                row = Magnitude(values, kept, Hint(hint.cut, hint.moved))
                assert torch.equal(keep_highest([row], pruned)[0], expected[pruned])


@pytest.mark.usefixtures("by_sample")
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([0.0, 1e-3, 3.0, 1e4]), st.booleans()),
        min_size=2,
        max_size=8,
    ),
    st.sampled_from(DTYPES),
    st.booleans(),
)
@example([(100, 0.0, True), (100, 0.0, True), (100, 0.0, True), (130, 0.0, True)], DTYPES[0], True)
@settings(max_examples=80, deadline=None)
def test_one_hint_through_a_run(
    steps: list[tuple[int, float, bool]], dtype: torch.dtype, masked: bool
) -> None:
    """Counts go up and down, weights move a little or far; what is pruned may stay pruned."""
    values, hint = torch.randn(300).to(dtype), Hint()
    kept = torch.ones(300, dtype=torch.bool)
    for pruned, move, remember in steps:
        values = (values + torch.randn(300) * move).to(dtype)
        row = Magnitude(values, kept if masked else None, hint)
        (mask,) = keep_highest([row], pruned)
        assert torch.equal(mask, reference([row.tensor()], pruned)[0])
        kept = kept & mask if remember else kept


def test_a_ramp_in_tiny_steps_goes_on_where_nothing_may_come_back() -> None:
    ramp = PolynomialDecaySchedule(total_iters=40_000, power=1)
    config = MagnitudePrunerConfig.uniform(0.5, ramp).model_copy(update={"allow_regrowth": False})
    pruner = MagnitudePruner(torch.nn.Linear(100, 100), config)
    model: Any = pruner.prepare()
    pruner.step(20_000)
    seen = []
    for _ in range(40):  # every eighth step one more weight goes
        pruner.step()
        seen.append(int((~model.parametrizations.weight[0].mask).sum()))
    assert seen == [2500 + step // 8 for step in range(1, 41)]


NONSENSE: dict[str, Any] = {
    "lowest": lambda rows, total: np.sort(rows[0].at(np.arange(len(rows[0]))))[:9],
    "highest": lambda rows, total: np.sort(rows[0].at(np.arange(len(rows[0]))))[-9:],
    "one": lambda rows, total: rows[0].at(np.array([0])),
    "the-same": lambda rows, total: rows[0].at(np.full(50, len(rows[0]) // 2)),
}


@pytest.mark.usefixtures("by_sample")
@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize("kind", ["normal", "zeros-at-the-cut", "few", "nan"])
def test_a_sample_that_misleads(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_sample", NONSENSE[name])
    values = KINDS[kind](200)
    for pruned in counts(200):
        check([values], pruned)
        check([Magnitude(values), Magnitude(values[:50], values[:50] > 0)], pruned)


@pytest.fixture
def large() -> Tensor:
    values = torch.randn(1_100_003)
    values[::3] = 0
    values[1::7] = 0.5
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_tensors_as_they_are(
    dtype: torch.dtype, large: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, *SMALL[-1])
    values, hint = large.to(dtype), Hint()
    kept = values.abs() > 0.1
    for share in (0.2, 0.45, 0.4501, 0.93):
        pruned = int(len(values) * share)
        expected = reference([values.abs()], pruned)[0]
        assert torch.equal(unstructured_mask(Magnitude(values, hint=hint), share), expected)
        there = unstructured_mask(values.abs().as_subclass(Far), share)
        assert torch.equal(there.as_subclass(Tensor), expected)
        row = Magnitude(values, kept)
        assert torch.equal(unstructured_mask(row, share), reference([row.tensor()], pruned)[0])


def test_one_threshold_over_rows_larger_than_what_is_compared_at_once(large: Tensor) -> None:
    rows: list[Scores] = [Magnitude(large[:300_001]), Magnitude(large[:0]), Magnitude(large[5:])]
    plain = [row.tensor() for row in rows if isinstance(row, Magnitude)]
    for share in (0.3, 0.5, 0.9):
        expected = reference(plain, int(sum(map(len, plain)) * share))
        for found in (global_masks(rows, share), global_masks(plain, share)):
            assert all(map(torch.equal, found, expected))
