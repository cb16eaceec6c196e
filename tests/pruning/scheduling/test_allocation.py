"""One target for many tensors: shares by shape, and one threshold over all."""

from collections.abc import Sequence
from math import floor, prod
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    ModuleMagnitudePrunerConfig,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.errors import AllocationError, PruningError, UnreachableSparsityWarning
from coreai_opt.pruning.masks.of_scores import global_masks
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.scheduling.allocation import allocate, erdos_renyi
from coreai_opt.pruning.spec import (
    ChannelStructured,
    NMStructured,
    PruneImplBase,
    PruningScheme,
)
from tests.helpers.pruning import asking

RAMP = PolynomialDecaySchedule(total_iters=7, power=2)
STARTED = PolynomialDecaySchedule(total_iters=9, begin_step=2, initial_sparsity=0.3)
GAPS = PolynomialDecaySchedule(total_iters=9, update_frequency=4)
Shape = tuple[int, ...]
SHAPES = st.lists(
    st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8
)
SPARSITIES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
modestly = settings(max_examples=100, deadline=None)


def by_bisection(shapes: Sequence[Shape], sparsity: float) -> list[float]:
    """The same densities, min(1, epsilon * sum / product), with epsilon looked for, not solved."""
    budget = (1 - sparsity) * sum(map(prod, shapes))

    def densities(epsilon: float) -> list[float]:
        return [min(1.0, epsilon * sum(shape) / prod(shape)) for shape in shapes]

    low, high = 0.0, 1.0 + max(map(prod, shapes))
    for _ in range(200):
        middle = (low + high) / 2
        kept = sum(d * prod(s) for d, s in zip(densities(middle), shapes, strict=True))
        low, high = (middle, high) if kept < budget else (low, middle)
    return [1 - density for density in densities(high)]


# 4x4: 16 weights and a sum of 8; 16x16: 256 and 32; 8x4x3x3: 288 and 18.
WORKED: list[Any] = [
    pytest.param([(4, 4), (16, 16)], 0.9, [1 - 5.44 / 16, 1 - 21.76 / 256], id="none-overflows"),
    pytest.param([(4, 4), (16, 16)], 0.5, [0, 1 - 120 / 256], id="small-one-dense"),
    pytest.param(
        [(4, 4), (16, 16), (8, 4, 3, 3)], 0.5, [0, 1 - 264 * 0.64 / 256, 1 - 264 * 0.36 / 288],
        id="kernel",
    ),
    pytest.param([(10,), (2, 5)], 0.5, [1 - 10 / 17, 1 - 7 / 17], id="vector"),
    pytest.param([(5, 5), (5, 5)], 0.3, [0.3, 0.3], id="equal-shapes"),
    pytest.param([(4, 4)], 0.37, [0.37], id="alone"),
    pytest.param([(4, 4), (0, 3)], 0.5, [0.5, 0], id="empty"),
    pytest.param([(4, 4), (16, 16)], 0.0, [0, 0], id="nothing"),
    pytest.param([(4, 4), (16, 16)], 1.0, [1, 1], id="everything"),
    pytest.param([], 0.5, [], id="no-tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "sparsity", "expected"), WORKED)
def test_worked_shares(shapes: list[Shape], sparsity: float, expected: list[float]) -> None:
    assert allocate("erdos_renyi", shapes, sparsity) == pytest.approx(expected)


@given(SHAPES, SPARSITIES)
@modestly
def test_shares_are_those_of_a_bisection(shapes: list[Shape], sparsity: float) -> None:
    shares = erdos_renyi(tuple(shapes), sparsity)
    assert shares == pytest.approx(by_bisection(shapes, sparsity), abs=1e-6)


@given(SHAPES, SPARSITIES)
@modestly
def test_shares_add_up_and_stay_within_0_to_1(shapes: list[Shape], sparsity: float) -> None:
    shares = erdos_renyi(tuple(shapes), sparsity)
    total = sum(map(prod, shapes))
    pruned = sum(share * prod(shape) for share, shape in zip(shares, shapes, strict=True))
    assert pruned == pytest.approx(sparsity * total, abs=1e-6 * total)
    assert all(0 <= share <= 1 for share in shares)


@given(SHAPES, SPARSITIES, SPARSITIES)
@modestly
def test_shares_grow_with_the_sparsity(shapes: list[Shape], one: float, other: float) -> None:
    assume(abs(one - other) > 1e-9)
    low = erdos_renyi(tuple(shapes), min(one, other))
    high = erdos_renyi(tuple(shapes), max(one, other))
    assert all(a <= b + 1e-9 for a, b in zip(low, high, strict=True))


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_other_allocations_give_every_tensor_the_same_number(allocation: str) -> None:
    assert allocate(allocation, [(4, 4), (100, 3), (7,)], 0.3) == [0.3] * 3


def net(dtypes: Sequence[torch.dtype] = (torch.float32,)) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 40), nn.Linear(40, 3)
    )
    for index, layer in enumerate(model):
        layer.to(dtypes[index % len(dtypes)])
    return model


def config(
    allocation: Any, target: float = 0.8, schedule: Any = None, **spec: Any
) -> MagnitudePrunerConfig:
    return asking(schedule, allocation, target_sparsity=target, **spec)


def dense(model: nn.Module) -> list[Tensor]:
    return [tensor.original.detach() for tensor in pruned_tensors(model)]


def masks(model: nn.Module) -> list[Tensor]:
    return [tensor.impl.mask for tensor in pruned_tensors(model)]


def zeros(model: nn.Module) -> list[int]:
    return [int((~mask).sum()) for mask in masks(model)]


@pytest.mark.parametrize("schedule", [RAMP, STARTED, GAPS, ConstantSparsitySchedule(begin_step=3)])
@pytest.mark.parametrize("target", [0.5, 0.8, 0.97])
def test_totals_of_erdos_renyi_are_those_of_uniform_at_every_step(
    schedule: Any, target: float
) -> None:
    by_shape = MagnitudePruner(net(), config("erdos_renyi", target, schedule))
    uniform = MagnitudePruner(net(), config("uniform", target, schedule))
    before = [0] * 4
    for step in range(14):
        for pruner in (by_shape, uniform):
            pruner.step() if step else pruner.prepare()
        now, total = zeros(by_shape.model), sum(zeros(uniform.model))
        assert abs(sum(now) - total) <= 4
        assert all(a <= b for a, b in zip(before, now, strict=True))
        asked = count_sparsity(by_shape.model).scheduled
        assert asked == pytest.approx(count_sparsity(uniform.model).scheduled)
        before = now
    assert by_shape.at_target()
    shapes = tuple(tuple(weight.shape) for weight in dense(by_shape.model))
    shares = erdos_renyi(shapes, target)
    assert [tensor.impl.target_sparsity for tensor in pruned_tensors(by_shape.model)] == [*shares]
    expected = [floor(prod(s) * share) for s, share in zip(shapes, shares, strict=True)]
    assert zeros(by_shape.model) == expected
    assert count_sparsity(by_shape.model).target == pytest.approx(target)


def by_one_sort(weights: list[Tensor], sparsity: float) -> list[list[bool]]:
    """Sort all weights by size, then by where they stand; the first ones are pruned."""
    values = [abs(value) for weight in weights for value in weight.double().flatten().tolist()]
    order = sorted(range(len(values)), key=lambda index: (values[index], index))
    pruned = set(order[: floor(len(values) * sparsity)])
    kept = iter([index not in pruned for index in range(len(values))])
    return [[next(kept) for _ in range(weight.numel())] for weight in weights]


MIXED = [torch.float32, torch.float16, torch.float64, torch.bfloat16]


@pytest.mark.parametrize("dtypes", [MIXED[:1], MIXED[1:2], MIXED], ids=["float32", "half", "mixed"])
@pytest.mark.parametrize("schedule", [RAMP, STARTED, None], ids=["ramp", "started", "at-once"])
def test_global_is_one_sort_over_all_at_every_step(
    schedule: Any, dtypes: list[torch.dtype]
) -> None:
    pruner = MagnitudePruner(net(dtypes), config("global", 0.8, schedule))
    model = pruner.prepare()
    before, kept = 0.0, masks(model)
    for step in range(12):
        if step:
            with torch.no_grad():
                for weight in dense(model):
                    weight.mul_(1 + 0.1 * step)
            pruner.step()
        sparsity = 0.8 if schedule is None else schedule.sparsity_at(step, 0.8)
        if sparsity != before:  # otherwise the masks stay, whatever becomes of the weights
            expected = by_one_sort(dense(model), sparsity)
            assert [mask.flatten().tolist() for mask in masks(model)] == expected
        else:
            assert all(torch.equal(a, b) for a, b in zip(masks(model), kept, strict=True))
        assert sum(zeros(model)) == floor(2128 * sparsity)
        assert {tensor.impl.scheduled for tensor in pruned_tensors(model)} == {sparsity}
        before, kept = sparsity, [mask.clone() for mask in masks(model)]
    assert pruner.at_target()
    assert [weight.dtype for weight in dense(model)] == [dtypes[i % len(dtypes)] for i in range(4)]


@given(
    st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0]), max_size=6), max_size=5), SPARSITIES
)
@modestly
def test_ties_under_one_threshold_go_by_index(values: list[list[float]], sparsity: float) -> None:
    scores = [torch.tensor(part) for part in values]
    found = [mask.tolist() for mask in global_masks(scores, sparsity)]
    assert found == by_one_sort(scores, sparsity)


def test_one_threshold_tells_apart_what_the_widest_dtype_can() -> None:
    close = torch.tensor([1 + 3e-12, 1 + 1e-12], dtype=torch.float64)
    other = torch.tensor([1.0, 1.5], dtype=torch.float32)
    found = [mask.tolist() for mask in global_masks([close, other], 0.5)]
    assert found == [[True, False], [False, True]]


@pytest.mark.parametrize("allocation", ["global", "erdos_renyi"])
def test_tensors_share_a_threshold_by_schedule_and_target(allocation: Any) -> None:
    def at(target: float, schedule: Any = None) -> ModuleMagnitudePrunerConfig:
        fields = config("uniform", target, schedule).global_config
        assert fields is not None
        return fields

    asked = MagnitudePrunerConfig(
        global_config=at(0.8, RAMP),
        module_name_configs={"0": at(0.5), "2": at(0.8, ConstantSparsitySchedule(begin_step=1))},
        allocation=allocation,
    )
    pruner = MagnitudePruner(net(), asked)
    model = pruner.prepare()
    assert zeros(model) == [0, 0, 0, 0]
    pruner.step(3)
    # The constant schedule's tensor is alone, as is the one with another target.
    assert zeros(model)[2] == 512
    assert zeros(model)[0] == floor(216 * RAMP.compute_sparsity(3, 0.5))
    together = zeros(model)[1] + zeros(model)[3]
    assert abs(together - (1152 + 120) * RAMP.compute_sparsity(3, 0.8)) < 2
    sizes = [1152, 120]
    apart = [floor(size * RAMP.compute_sparsity(3, 0.8)) for size in sizes]
    assert [zeros(model)[1], zeros(model)[3]] != apart
    pruner.step(10)
    assert (zeros(model)[0], zeros(model)[2]) == (108, 512)
    assert pruner.at_target()


def test_channels_may_take_part_by_shape() -> None:
    asked = config("erdos_renyi", 0.75, RAMP, pruning_scheme=ChannelStructured())
    pruner = MagnitudePruner(net(), asked)
    with pytest.warns(UnreachableSparsityWarning, match="ChannelStructured"):
        model = pruner.prepare()
    pruner.step(7)
    shares = erdos_renyi(tuple(tuple(weight.shape) for weight in dense(model)), 0.75)
    for mask, share in zip(masks(model), shares, strict=True):
        rows = mask.flatten(1)
        assert torch.equal(rows.any(1), rows.all(1))
        assert int((~rows.all(1)).sum()) == floor(len(rows) * share)
    assert pruner.at_target()


class MaskOnly(PruneImplBase):
    """A criterion without scores."""

    @staticmethod
    def compute_mask(weight: Tensor, sparsity: float, pruning_scheme: PruningScheme) -> Tensor:
        return torch.ones_like(weight)


REFUSED: list[Any] = [
    pytest.param(
        "global", {"pruning_scheme": ChannelStructured()}, "single weights.*ChannelStructured",
        id="global-channels",
    ),
    pytest.param(
        "global", {"pruning_scheme": NMStructured(n=1, m=2)}, "NMStructured", id="global-n:m"
    ),
    pytest.param(
        "global", {"pruning_algo": MaskOnly}, "MaskOnly overrides only compute_mask", id="mask-only"
    ),
    pytest.param(
        "erdos_renyi", {"pruning_scheme": NMStructured(n=1, m=2)}, "fixes the sparsity of each",
        id="shape-n:m",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("allocation", "spec", "message"), REFUSED)
def test_what_cannot_take_part_is_refused_by_name(allocation: Any, spec: Any, message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    own = config(allocation, 0.5, **spec).global_config
    asked = MagnitudePrunerConfig(module_name_configs={"1": own}, allocation=allocation)
    start = rf"^'1\.weight' cannot take part in allocation={allocation}: .*"
    with pytest.raises(AllocationError, match=f"{start}{message}.*; allowed: allocation=uniform"):
        MagnitudePruner(model, asked).prepare()
    assert not hasattr(model[0], "parametrizations")


def test_a_criterion_without_scores_cannot_keep_weights_from_coming_back() -> None:
    asked = config("uniform", 0.5, pruning_algo=MaskOnly)
    MagnitudePruner(nn.Linear(4, 4), asked).prepare()
    asked.allow_regrowth = False
    with pytest.raises(PruningError, match="allow_regrowth=False needs scores, and MaskOnly of 'w"):
        MagnitudePruner(nn.Linear(4, 4), asked).prepare()


@pytest.mark.parametrize("allocation", ["erdos", "Uniform", None])
def test_an_unknown_allocation_is_refused(allocation: Any) -> None:
    with pytest.raises(ValueError, match=r"uniform.*erdos_renyi.*global"):
        MagnitudePrunerConfig(allocation=allocation)
