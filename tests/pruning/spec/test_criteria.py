"""By what score: the control that knows nothing, the one of gradients, and one's own."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.spec import (
    MagnitudePruneImpl,
    PruneImplBase,
    PruningSpec,
    RandomPruneImpl,
    TaylorPruneImpl,
    Unstructured,
)
from tests.helpers.pruning import asking, impl, original, same

RAMP = PolynomialDecaySchedule(total_iters=5, power=1)
GAPS = PolynomialDecaySchedule(total_iters=12, power=1, update_frequency=3)


def config(algo: Any, target: float = 0.8, schedule: Any = RAMP) -> MagnitudePrunerConfig:
    return asking(schedule, target_sparsity=target, pruning_algo=algo)


def pruner_of(algo: Any, seed: int = 0, schedule: Any = RAMP, **sizes: Any) -> MagnitudePruner:
    torch.manual_seed(seed)
    width = sizes.get("width", 6)
    model = nn.Sequential(nn.Linear(width, 10), nn.Tanh(), nn.Linear(10, 10))
    pruner = MagnitudePruner(model, config(algo, schedule=schedule))
    pruner.prepare()
    return pruner


def masks(pruner: MagnitudePruner) -> list[Tensor]:
    return [impl(pruner.model, name).mask.clone() for name in ("0", "2")]


def walk(pruner: MagnitudePruner, steps: int, first: int = 0) -> list[list[Tensor]]:
    """Backward passes with their own data, and steps; return the masks after each."""
    seen = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        width = pruner.model[0].in_features
        batch = torch.randn(4, width, generator=generator).to(original(pruner.model).dtype)
        pruner.model.zero_grad()
        pruner.model(batch).square().sum().backward()
        pruner.step()
        seen.append(masks(pruner))
    return seen


def test_random_is_the_same_for_a_seed_and_another_for_another() -> None:
    one, again, other = (walk(pruner_of("random", seed), 5)[-1] for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


def test_random_differs_by_tensor_and_draws_only_when_prepared() -> None:
    pruner = pruner_of("random", width=10)
    state = torch.random.get_rng_state()
    final = walk(pruner, 5)[-1]
    assert not torch.equal(final[0], final[1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_knows_nothing_of_the_weights() -> None:
    weight = torch.rand(50, 20)
    criterion = RandomPruneImpl(weight, PruningSpec())
    assert torch.equal(criterion.score(weight), criterion.score(-weight * 3))
    assert torch.equal(criterion.score(weight), criterion.score(weight.double()).float())


def splitmix(seed: int, index: int) -> int:
    """The finaliser of SplitMix64, in whole numbers; the 24 highest bits."""
    size = 2**64
    bits = (index * 0x9E3779B97F4A7C15 + seed) % size
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % size
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % size
    return (bits ^ bits >> 31) >> 40


def test_random_is_the_hash_it_says_it_is() -> None:
    weight = torch.ones(5, 7)
    criterion = RandomPruneImpl(weight, PruningSpec())
    seed = int(criterion.seed)
    expected = [float(splitmix(seed, index)) for index in range(35)]
    assert criterion.score(weight).flatten().tolist() == expected


def taylor(pruner: MagnitudePruner, name: str = "0") -> TaylorPruneImpl:
    found = impl(pruner.model, name)
    assert isinstance(found, TaylorPruneImpl)
    return found


def backward(pruner: MagnitudePruner, seed: int) -> Tensor:
    """One backward pass; return ``|w * dL/dw|`` of the first weight, from a gradient of its own."""
    model, weight = pruner.model, original(pruner.model)
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(4, model[0].in_features, generator=generator).to(weight.dtype)
    mask = taylor(pruner).mask
    values = torch.where(mask, weight, 0.0).detach().requires_grad_()
    hidden = torch.tanh(nn.functional.linear(batch, values, model[0].bias))
    model[2](hidden).square().sum().backward(inputs=[values])
    assert values.grad is not None
    model(batch).square().sum().backward()
    return (values * values.grad).abs().detach() * mask


def test_taylor_adds_up_weight_times_gradient() -> None:
    pruner = pruner_of("taylor", schedule=GAPS)
    total = sum(backward(pruner, seed) for seed in range(4))
    torch.testing.assert_close(taylor(pruner).importance, total)
    pruner.step(3)
    pruned = ~taylor(pruner).mask
    assert int(pruned.sum()) == 15  # a third of 0.8 of 60, rounded on the way and then down
    assert total[pruned].max() < total[~pruned].min()


def test_taylor_starts_anew_after_an_update_and_keeps_the_sum_until_then() -> None:
    pruner = pruner_of("taylor", schedule=GAPS)
    backward(pruner, 0)
    pruner.step(3)
    kept = taylor(pruner).importance.clone()
    pruner.step()  # between two updates
    assert torch.equal(taylor(pruner).importance, kept)
    first = backward(pruner, 1)
    torch.testing.assert_close(taylor(pruner).importance, first)
    pruner.step()
    second = backward(pruner, 2)
    torch.testing.assert_close(taylor(pruner).importance, first + second)
    before = taylor(pruner).mask.clone()
    pruner.step()
    pruned = before & ~taylor(pruner).mask
    assert (first + second)[pruned].max() < (first + second)[taylor(pruner).mask].min()


def test_taylor_does_not_let_weights_come_back() -> None:
    seen = walk(pruner_of("taylor"), 6)
    for wide, narrow in pairwise(seen):
        assert all(bool((a | ~b).all()) for a, b in zip(wide, narrow, strict=True))
    assert [int((~mask).sum()) for mask in seen[-1]] == [48, 80]


def test_taylor_prunes_weights_of_no_importance_after_those_already_pruned() -> None:
    pruner = pruner_of("taylor", schedule=GAPS)
    for seed in (0, 1):
        backward(pruner, seed)
        pruner.step(3)
    before = taylor(pruner).mask.clone()
    with torch.no_grad():
        original(pruner.model).zero_()
    backward(pruner, 2)
    pruner.step(3)
    assert bool((before | ~taylor(pruner).mask).all())


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_taylor_leaves_out_a_batch_whose_gradient_is_not_finite(value: float) -> None:
    pruner = pruner_of("taylor", schedule=GAPS)
    first = backward(pruner, 0)
    weight = original(pruner.model)
    gradient = torch.ones_like(weight)
    gradient[0, 0] = value
    taylor(pruner)._add(weight, gradient)
    torch.testing.assert_close(taylor(pruner).importance, first)
    second = backward(pruner, 1)
    torch.testing.assert_close(taylor(pruner).importance, first + second)


def test_taylor_adds_up_in_float32() -> None:
    for size, gradient in ((1e-4, 1e-6), (1000.0, 1000.0)):
        weight = nn.Parameter(torch.full((2, 3), size, dtype=torch.float16))
        criterion = TaylorPruneImpl(weight, PruningSpec())
        criterion._add(weight, torch.full((2, 3), gradient, dtype=torch.float16))
        expected = float(torch.tensor(size).half()) * float(torch.tensor(gradient).half())
        assert criterion.importance.dtype == torch.float32
        assert criterion.importance.tolist() == [[pytest.approx(expected, rel=1e-6)] * 3] * 2


@pytest.mark.parametrize("schedule", [None, ConstantSparsitySchedule()])
def test_taylor_has_no_score_at_step_0_and_the_model_stays_as_it_was(schedule: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 10))
    keys = list(model.state_dict())
    pruner = MagnitudePruner(model, config("taylor", schedule=schedule))
    weight = model[0].weight.detach().clone()
    for _ in range(2):
        with pytest.raises(
            PruningError, match=r"none has reached '0\.weight' yet; allowed: .*begin_step >= 1"
        ):
            pruner.prepare()
    assert list(model.state_dict()) == keys
    assert torch.equal(model[0].weight, weight)
    assert type(model[0]) is nn.Linear
    with pytest.raises(RuntimeError, match="must be prepared"):
        pruner.step()


def test_taylor_needs_a_pass_before_the_first_step_that_prunes() -> None:
    pruner = pruner_of("taylor")
    with torch.no_grad():
        pruner.model(torch.rand(2, 6))
    with pytest.raises(PruningError, match="none has reached"):
        pruner.step()
    assert pruner.step_count == 0
    backward(pruner, 0)
    pruner.step(2)
    assert (pruner.step_count, int((~taylor(pruner).mask).sum())) == (2, 24)


def test_taylor_without_a_new_pass_goes_by_the_last_sum() -> None:
    pruner = pruner_of("taylor")
    total = backward(pruner, 0)
    pruner.step(2)
    other = pruner_of("taylor", 1)
    other.model.load_state_dict(pruner.model.state_dict())
    for going_on in (pruner, other):
        going_on.step(2)
    pruned = ~taylor(pruner).mask
    assert torch.equal(taylor(other).mask, ~pruned)
    assert int(pruned.sum()) == 48
    assert total[pruned].max() < total[~pruned].min()


def test_taylor_looks_at_a_frozen_weight_once_it_is_trained() -> None:
    pruner = pruner_of("taylor")
    weight = original(pruner.model)
    frozen = copy.deepcopy(pruner)
    original(frozen.model).requires_grad_(False)
    frozen.model(torch.rand(2, 6)).sum().backward()
    assert taylor(frozen).importance.count_nonzero() == 0
    original(frozen.model).requires_grad_(True)
    assert torch.equal(original(frozen.model), weight)
    backward(frozen, 0)
    backward(pruner, 0)
    assert torch.equal(taylor(frozen).importance, taylor(pruner).importance)


def test_taylor_sees_a_tied_weight_once_a_pass() -> None:
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    model[1].weight = model[0].weight
    pruner = MagnitudePruner(model, config("taylor"))
    pruner.prepare()
    weight = original(model, "0")
    model(torch.rand(2, 5)).square().sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(taylor(pruner).importance, (weight * weight.grad).abs().detach())
    assert taylor(pruner) is taylor(pruner, "1")
    pruner.step(2)
    assert int((~taylor(pruner, "1").mask).sum()) == 10


class Largest(PruneImplBase):
    """One method: what is largest goes first."""

    def score(self, weight: Tensor) -> Tensor:
        return -weight.abs()


@pytest.mark.parametrize("how", ["key", "class", "path"])
def test_a_criterion_of_ones_own(how: str) -> None:
    PruneImplBase.register("largest")(Largest)
    algo: Any = {"key": "largest", "class": Largest, "path": f"{__name__}.Largest"}[how]
    pruner = pruner_of(algo)
    pruner.step(5)
    weight, mask = original(pruner.model).detach().abs(), impl(pruner.model).mask
    assert type(impl(pruner.model)) is Largest
    assert int((~mask).sum()) == 48
    assert weight[~mask].min() > weight[mask].max()


WRONG: list[Any] = [
    ("no.such.Class", "'no.such.Class' cannot be imported"),
    (f"{__name__}.Missing", "cannot be imported"),
    ("torch.nn.Linear", "is no PruneImplBase; allowed: default, random, taylor"),
    ("randm", "did you mean 'random'"),
]


@pytest.mark.parametrize(("algo", "message"), WRONG)
def test_what_is_no_criterion_is_refused(algo: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PruningSpec(pruning_algo=algo)


def test_the_keys_of_the_registry() -> None:
    assert PruneImplBase.list_registry_keys() == ["default", "random", "taylor"]
    classes = [MagnitudePruneImpl, RandomPruneImpl, TaylorPruneImpl]
    assert [
        PruningSpec(pruning_algo=key).pruning_algo for key in ("default", "random", "taylor")
    ] == classes
    mask = MagnitudePruneImpl.compute_mask(torch.tensor([-3.0, 1.0]), 0.5, Unstructured())
    assert mask.tolist() == [True, False]
