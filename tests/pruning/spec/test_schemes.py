"""One contract for all schemes, against masks made in plain Python."""

import itertools
from math import floor, inf, prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import UnreachableSparsityWarning, UnsuitableShapeError
from coreai_opt.pruning.masks.of_scores import compute_mask
from coreai_opt.pruning.spec import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    PruningScheme,
    PruningSpec,
    Unstructured,
)
from tests.helpers.pruning.schemes import Index, config

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def units(scheme: PruningScheme, shape: Index) -> list[list[list[Index]]]:
    """Groups, of each as many units as it has, of each the indices that stand and fall together."""
    indices = list(itertools.product(*map(range, shape)))
    if isinstance(scheme, Unstructured):
        return [[[index] for index in indices]]
    if isinstance(scheme, ChannelStructured):
        channels = range(shape[scheme.axis])
        return [[[i for i in indices if i[scheme.axis] == channel] for channel in channels]]
    if isinstance(scheme, BlockStructured):
        given = (*scheme.block_shape, *[1] * len(shape))
        sides = [n if side == -1 else side for side, n in zip(given, shape, strict=False)]
        blocks: dict[Index, list[Index]] = {}
        for index in indices:
            corner = tuple(i // side for i, side in zip(index, sides, strict=True))
            blocks.setdefault(corner, []).append(index)
        return [list(blocks.values())]
    assert isinstance(scheme, NMStructured)
    groups: dict[Any, list[list[Index]]] = {}
    axis = scheme.axis % len(shape)
    for index in indices:
        group = (*index[:axis], index[axis] // scheme.m, *index[axis + 1 :])
        groups.setdefault(group, []).append([index])
    return list(groups.values())


def reference(scores: Tensor, sparsity: float, scheme: PruningScheme) -> list[bool]:
    """In every group sort the units by their sum, then by index; the first ones are pruned."""
    shape = tuple(scores.shape)
    pruned: set[Index] = set()
    for group in units(scheme, shape):
        count = floor(len(group) * sparsity)
        if isinstance(scheme, NMStructured):
            pattern = scheme.m - scheme.n
            count = pattern if sparsity * scheme.m >= pattern - 1e-9 else count
        worth = [sum(float(scores[index]) for index in unit) for unit in group]
        order = sorted(range(len(group)), key=lambda unit: (worth[unit], unit))
        pruned |= {index for unit in order[:count] for index in group[unit]}
    return [index not in pruned for index in itertools.product(*map(range, shape))]


SCHEMES: list[Any] = [
    pytest.param(Unstructured(), id="unstructured"),
    pytest.param(ChannelStructured(), id="channels"),
    pytest.param(ChannelStructured(axis=1), id="channels-1"),
    pytest.param(ChannelStructured(axis=-1), id="channels-last"),
    pytest.param(BlockStructured(block_shape=(2, 2)), id="blocks"),
    pytest.param(BlockStructured(block_shape=(1, -1)), id="rows-of-blocks"),
    pytest.param(BlockStructured(block_shape=(2,)), id="blocks-of-one-axis"),
    pytest.param(NMStructured(n=1, m=2), id="1:2"),
    pytest.param(NMStructured(n=3, m=4), id="3:4"),
    pytest.param(NMStructured(n=2, m=4, axis=0), id="2:4-first"),
    pytest.param(NMStructured(n=1, m=4, axis=1), id="1:4-second"),
    pytest.param(NMStructured(n=2, m=2), id="2:2"),
]
SHAPES = [(4, 4), (8, 4), (4, 8), (4, 4, 4), (12, 4)]
SPARSITIES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9, 1.0]))
modestly = settings(max_examples=25, deadline=None)


@st.composite
def scores(draw: st.DrawFn) -> Tensor:
    """Whole numbers and quarters, whose sums are exact in every dtype, and many ties."""
    shape = draw(st.sampled_from(SHAPES))
    pool = draw(st.sampled_from([[1.0], [1.0, 2.0], [0.0, -0.0], [i / 4 for i in range(-8, 9)]]))
    values = draw(st.lists(st.sampled_from(pool), min_size=prod(shape), max_size=prod(shape)))
    return torch.tensor(values, dtype=draw(st.sampled_from(DTYPES))).reshape(shape)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(values=scores(), sparsity=SPARSITIES)
@modestly
def test_the_mask_is_that_of_plain_python(
    scheme: PruningScheme, values: Tensor, sparsity: float
) -> None:
    before = values.clone()
    mask = compute_mask(values, sparsity, scheme)
    assert (mask.dtype, mask.shape) == (torch.bool, values.shape)
    assert mask.flatten().tolist() == reference(values, sparsity, scheme)
    assert torch.equal(values, before)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(values=scores(), sparsity=SPARSITIES)
@modestly
def test_as_many_are_pruned_as_the_scheme_says(
    scheme: PruningScheme, values: Tensor, sparsity: float
) -> None:
    pruned = int((~compute_mask(values, sparsity, scheme)).sum())
    assert pruned == scheme.pruned_elements(tuple(values.shape), sparsity)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_masks_follow_the_shape_and_not_the_memory(scheme: PruningScheme) -> None:
    weight = torch.rand(4, 8)
    turned = weight.t().contiguous().t()
    assert torch.equal(compute_mask(turned, 0.5, scheme), compute_mask(weight, 0.5, scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sparsity", [-0.01, 1.01, float("nan")])
def test_a_sparsity_outside_0_to_1_is_refused(scheme: PruningScheme, sparsity: float) -> None:
    with pytest.raises(ValueError, match=r"sparsity is .*allowed: 0 to 1"):
        compute_mask(torch.ones(4, 4), sparsity, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_round_trips_with_its_type(scheme: PruningScheme) -> None:
    dump = scheme.model_dump()
    assert PruningScheme.get_class(dump["type"]) is type(scheme)
    assert PruningScheme.maybe_build_from_dict(dump) == scheme
    assert PruningScheme.maybe_build_from_dict(scheme) is scheme
    spec = PruningSpec(pruning_scheme=dump)
    assert spec.pruning_scheme == scheme
    assert PruningSpec(**spec.model_dump()) == spec
    assert PruningSpec.model_validate_json(spec.model_dump_json()) == spec
    assert len({scheme, PruningScheme.maybe_build_from_dict(dump)}) == 1


def test_the_keys_of_the_registry() -> None:
    keys = PruningScheme.list_registry_keys()
    assert keys == ["unstructured", "channel_structured", "n_m", "block"]
    with pytest.raises(ValueError, match="'n_m' is already registered, for NMStructured"):
        PruningScheme.register("n_m")(Unstructured)


WRONG: list[Any] = [
    ({"type": "n_m", "n": 0, "m": 4}, "n"),
    ({"type": "n_m", "n": 1, "m": 0}, "m"),
    ({"type": "n_m", "n": 5, "m": 4}, "n is 5, more than m; allowed: n from 1 to m"),
    ({"type": "n_m", "m": 4}, "n"),
    ({"type": "block", "block_shape": []}, "block_shape"),
    ({"type": "block", "block_shape": [0, 2]}, r"\(0, 2\) has a 0; allowed: sizes >= 1"),
    ({"type": "block", "block_shape": [-2]}, "block_shape"),
    ({"type": "channel_structured", "axis": "first"}, "axis"),
    ({"type": "channel_structured", "axes": 0}, "axes"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_a_scheme_refuses_a_bad_value_by_name(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PruningSpec(pruning_scheme=fields)


GROUPS: list[Any] = [
    pytest.param(
        ChannelStructured(), [[-4.0, 4.0], [3.0, -3.0], [9.0, -2.0]], 0.4, [1, 0, 1], id="l1-norm"
    ),
    pytest.param(
        ChannelStructured(), [[1.0, 3.0], [2.0, 2.0], [4.0, 0.0]], 0.7, [0, 0, 1], id="equal-norms"
    ),
    pytest.param(
        BlockStructured(block_shape=(1, 2)), [[5.0, 0.0], [2.0, 2.0], [0.0, 3.0]], 0.7, [1, 0, 0],
        id="blocks",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("scheme", "weight", "sparsity", "rows"), GROUPS)
def test_rows_by_magnitude(
    scheme: PruningScheme, weight: list[list[float]], sparsity: float, rows: list[int]
) -> None:
    mask = compute_mask(torch.tensor(weight).abs(), sparsity, scheme)
    assert mask.int().tolist() == [[row, row] for row in rows]


def test_sums_do_not_overflow_or_lose_what_is_small() -> None:
    large = torch.tensor([[60_000.0, 60_000.0], [60_000.0, 60_001.0]], dtype=torch.float16)
    large[1, 0] = 60_032.0
    assert compute_mask(large, 0.5, ChannelStructured()).tolist() == [[False] * 2, [True] * 2]
    many = torch.full((2, 3000), 1.0, dtype=torch.bfloat16)
    many[0, 0] = 1.0078125
    assert compute_mask(many, 0.5, ChannelStructured())[:, 0].tolist() == [True, False]


@pytest.mark.parametrize("scheme", SCHEMES[1:])
def test_infinities_zeros_of_both_signs_and_subnormals_are_ordered(scheme: PruningScheme) -> None:
    tiny = torch.finfo(torch.float32).smallest_normal / 4
    rows = [[-0.0] * 4, [tiny] * 4, [0.0] * 4, [2 * tiny] * 4, [inf] * 4, [1.0] * 4, [tiny] * 4]
    values = torch.tensor([*rows, [-inf] * 4])
    for sparsity in (0.25, 0.5, 0.75):
        mask = compute_mask(values, sparsity, scheme)
        assert mask.flatten().tolist() == reference(values, sparsity, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_an_empty_tensor_has_an_empty_mask(
    scheme: PruningScheme, shape: Index, sparsity: float
) -> None:
    assert compute_mask(torch.empty(shape), sparsity, scheme).shape == shape
    assert scheme.pruned_elements(shape, sparsity) == 0


ONE_AXIS: list[Any] = [
    (ChannelStructured(), [3.0, 1.0, 2.0, 1.0], [1, 0, 1, 0]),
    (ChannelStructured(axis=-1), [3.0, 1.0, 2.0, 1.0], [1, 0, 1, 0]),
    (BlockStructured(block_shape=(2,)), [3.0, 1.0, 2.0, 1.0], [1, 1, 0, 0]),
    (NMStructured(n=1, m=2), [3.0, 1.0, 2.0, 2.0], [1, 0, 0, 1]),
]


@pytest.mark.parametrize(("scheme", "values", "expected"), ONE_AXIS)
def test_one_axis(scheme: PruningScheme, values: list[float], expected: list[int]) -> None:
    assert compute_mask(torch.tensor(values), 0.5, scheme).int().tolist() == expected


UNSUITABLE: list[Any] = [
    pytest.param(ChannelStructured(axis=2), "axis is 2, and the weight has 2 axes", id="axis"),
    pytest.param(ChannelStructured(axis=-3), "axis is -3", id="negative-axis"),
    pytest.param(NMStructured(n=2, m=4, axis=-3), "axis is -3", id="n:m-axis"),
    pytest.param(
        NMStructured(n=2, m=4), "2:4 needs a multiple of 4 weights along axis -1.*are 7", id="n:m"
    ),
    pytest.param(
        BlockStructured(block_shape=(3, 2)),
        r"multiple of 2 along axis 1, and there are 7",
        id="block",
    ),
    pytest.param(
        BlockStructured(block_shape=(1, 1, -1)), "has 3 axes, and the weight has 2", id="more-axes"
    ),
]


@pytest.mark.parametrize(("scheme", "message"), UNSUITABLE)
def test_a_layer_that_does_not_fit_is_named_with_its_shape(
    scheme: PruningScheme, message: str
) -> None:
    model = nn.Sequential(nn.Conv1d(4, 9, 8), nn.Linear(7, 9))
    names: Any = {"1": config(scheme).global_config}
    asked = MagnitudePrunerConfig(module_name_configs=names)
    with pytest.raises(UnsuitableShapeError, match=rf"'1\.weight' of shape \[9, 7\].*{message}"):
        MagnitudePruner(model, asked).prepare()
    assert not hasattr(model[0], "parametrizations")
    with pytest.raises(ValueError, match=message):
        compute_mask(torch.ones(9, 7), 0.5, scheme)


@pytest.mark.parametrize("target", [0.1, 0.5, 0.9, 1.0])
def test_n_m_ends_at_its_pattern_whatever_is_asked(target: float) -> None:
    ramp = PolynomialDecaySchedule(total_iters=5, power=1)
    pruner = MagnitudePruner(nn.Linear(8, 8), config(NMStructured(n=2, m=4), target, ramp))
    if target == 0.5:
        model = pruner.prepare()
    else:
        with pytest.warns(UnreachableSparsityWarning, match=f"{target:.2%}.*50.00%"):
            model = pruner.prepare()
    seen = [int((model.weight == 0).sum())]
    for _ in range(6):
        pruner.step()
        seen.append(int((model.weight == 0).sum()))
    assert seen == [0, 0, 16, 16, 32, 32, 32]
    assert pruner.at_target()
    groups = model.parametrizations.weight[0].mask.view(8, 2, 4)
    assert (groups.sum(-1) == 2).all()


def test_n_m_asked_for_nothing_prunes_nothing() -> None:
    model = MagnitudePruner(nn.Linear(8, 8), config(NMStructured(n=2, m=4), 0.0)).prepare()
    assert int((model.weight == 0).sum()) == 0


@pytest.mark.parametrize("m", range(1, 50))
def test_every_pattern_is_exact_at_its_own_sparsity(m: int) -> None:
    for n in range(1, m + 1):
        pattern = NMStructured(n=n, m=m)
        target = pattern.target_for(0.3)
        assert pattern.pruned_elements((3, m), target) == 3 * (m - n)
        below = max(target - 1e-6, 0.0)
        assert pattern.pruned_per_group(below) == max(m - n - 1, 0)


def test_what_cannot_be_reached_is_said_in_a_table_before_training() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 20))
    with pytest.warns(UnreachableSparsityWarning) as caught:
        MagnitudePruner(model, config(ChannelStructured(), 0.1)).prepare()
    (warning,) = caught
    text = str(warning.message)
    assert warning.filename == __file__
    rows = [line.split() for line in text.splitlines() if "weight" in line]
    assert rows == [["0.weight", "8x4", "ChannelStructured", "10.00%", "0.00%"]]
    assert int((model[0].weight == 0).sum()) == 0


def test_the_table_says_that_n_of_m_are_kept() -> None:
    with pytest.warns(UnreachableSparsityWarning, match="NMStructured 1:4 kept +50.00% +75.00%"):
        MagnitudePruner(nn.Linear(8, 8), config(NMStructured(n=1, m=4), 0.5)).prepare()


REACHABLE: list[Any] = [
    (ChannelStructured(), 0.25),
    (ChannelStructured(), 0.0),
    (NMStructured(n=2, m=4), 0.5),
    (NMStructured(n=2, m=4), 0.0),
    (BlockStructured(block_shape=(4, 4)), 0.5),
    (Unstructured(), 0.123),
]


@pytest.mark.parametrize(("scheme", "target"), REACHABLE)
def test_what_can_be_reached_is_not_warned_of(scheme: PruningScheme, target: float) -> None:
    model = MagnitudePruner(nn.Linear(8, 8), config(scheme, target)).prepare()
    assert int((model.weight == 0).sum()) == floor(64 * target)
