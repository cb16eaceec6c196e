"""Optimizers against pruned weights: what is pruned stays, what comes back starts anew."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import SparsityScheduleBase
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    PruningSpec,
)
from tests.helpers.pruning.optimizers import (
    OPTIMIZERS,
    RAMP,
    Make,
    dense,
    masks,
    moments,
    pruner_of,
    train,
)

pytestmark = pytest.mark.usefixtures("any_size")


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_other_weights_move_as_they_would_without(make: Make) -> None:
    one, other = pruner_of(), pruner_of()
    optimizers = [make(pruner.model.parameters()) for pruner in (one, other)]
    one.mask_optimizer_state(optimizers[0])
    for step in range(12):
        for pruner, optimizer in zip((one, other), optimizers, strict=True):
            train(pruner, optimizer, step)
            with torch.no_grad():  # the same masks in both: what is pruned stays pruned
                for weight, mask in zip(dense(pruner), masks(pruner), strict=True):
                    weight[~mask] *= 0.0
            pruner.step()
        assert all(torch.equal(a, b) for a, b in zip(masks(one), masks(other), strict=True))
        for mine, theirs, mask in zip(dense(one), dense(other), masks(one), strict=True):
            assert torch.equal(mine[mask], theirs[mask])
        for name in ("0.bias", "2.bias", "3.weight"):
            assert torch.equal(one.model.get_parameter(name), other.model.get_parameter(name))


def revive(pruner: MagnitudePruner, count: int) -> Tensor:
    """Make pruned weights of the first layer large; return where."""
    weight, mask = dense(pruner)[0], masks(pruner)[0]
    places = (~mask).flatten().nonzero().flatten()[:count]
    with torch.no_grad():
        weight.view(-1)[places] = torch.arange(9.0, 9.0 + count)
    return places


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_what_comes_back_has_no_moments(make: Make) -> None:
    pruner = pruner_of()
    optimizer = make(pruner.model.parameters())
    pruner.mask_optimizer_state(optimizer)
    for step in range(4):
        train(pruner, optimizer, step)
        pruner.step()
    kept_before, places = masks(pruner)[0].flatten(), revive(pruner, 3)
    for moment in moments(optimizer, dense(pruner)[0]):
        moment.fill_(0.5)  # as if it had been left there
    pruner.step()
    kept = masks(pruner)[0].flatten()
    assert kept[places].all()
    for moment in moments(optimizer, dense(pruner)[0]):
        assert moment.flatten()[places].count_nonzero() == 0
        assert moment.flatten()[~kept].count_nonzero() == 0
        assert (moment.flatten()[kept & kept_before] == 0.5).all()


def test_control_adamw_wears_pruned_weights_down() -> None:
    sizes = []
    for masked in (True, False):
        pruner = pruner_of(None)
        optimizer = AdamW(pruner.model.parameters(), 0.1, weight_decay=0.5)
        if masked:
            pruner.mask_optimizer_state(optimizer)
        start = float(dense(pruner)[0][~masks(pruner)[0]].detach().abs().sum())
        for step in range(20):
            train(pruner, optimizer, step)
        sizes.append(float(dense(pruner)[0][~masks(pruner)[0]].detach().abs().sum()) / start)
    assert sizes == [1.0, pytest.approx(0.95**20, rel=1e-4)]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_an_optimizer_with_a_past_is_cleaned_when_it_is_handed_over(make: Make) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.LayerNorm(5))
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.8))
    optimizer = make(model.parameters())
    for step in range(3):
        train(pruner, optimizer, step)
    pruner.prepare()
    pruner.mask_optimizer_state(optimizer)
    before = [weight.detach().clone() for weight in dense(pruner)]
    train(pruner, optimizer, 3)
    for weight, old, mask in zip(dense(pruner), before, masks(pruner), strict=True):
        assert torch.equal(weight[~mask], old[~mask])


def test_several_optimizers_and_groups() -> None:
    pruner = pruner_of()
    first, rest = [dense(pruner)[0]], [dense(pruner)[1], pruner.model[0].bias]
    one = SGD([{"params": first, "weight_decay": 0.1}], 0.1, momentum=0.9)
    other = AdamW([{"params": rest}, {"params": [pruner.model[2].bias]}], 0.1)
    neither = SGD(pruner.model[3].parameters(), 0.1)
    pruner.mask_optimizer_state(one, other, neither)
    assert not neither._optimizer_step_pre_hooks
    for step in range(6):
        before = [weight.detach().clone() for weight in dense(pruner)]
        train(pruner, one, step)
        other.step()
        for weight, old, mask in zip(dense(pruner), before, masks(pruner), strict=True):
            assert torch.equal(weight[~mask], old[~mask])
        pruner.step()


@pytest.mark.parametrize("how", ["release", "finalize"])
def test_released_optimizers_are_left_as_they_were_found(how: str) -> None:
    pruner = pruner_of()
    optimizers = [SGD(pruner.model.parameters(), 0.1, weight_decay=0.1) for _ in range(2)]
    for optimizer in optimizers:
        pruner.mask_optimizer_state(optimizer)
        assert optimizer._optimizer_step_pre_hooks
    pruner.step(5)
    pruner.release_optimizers() if how == "release" else pruner.finalize()
    for optimizer in optimizers:
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
    if how == "release":
        pruner.release_optimizers()
        before, mask = dense(pruner)[0].detach().clone(), masks(pruner)[0]
        train(pruner, optimizers[0], 0)
        assert (dense(pruner)[0][~mask] != before[~mask]).all()


def test_an_optimizer_may_be_handed_over_again() -> None:
    pruner = pruner_of()
    optimizer = AdamW(pruner.model.parameters(), 0.1)
    for _ in range(3):
        pruner.mask_optimizer_state(optimizer)
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    pruner.step(5)
    before, mask = dense(pruner)[0].detach().clone(), masks(pruner)[0]
    train(pruner, optimizer, 0)
    assert torch.equal(dense(pruner)[0][~mask], before[~mask])
    pruner.release_optimizers()
    assert not optimizer._optimizer_step_pre_hooks


def test_parameters_that_were_assigned_are_looked_after() -> None:
    pruner = pruner_of()
    early = AdamW(pruner.model.parameters(), 0.1, weight_decay=0.5)
    pruner.mask_optimizer_state(early)
    state = {name: value.clone() for name, value in pruner.model.state_dict().items()}
    pruner.model.load_state_dict(state, assign=True)
    late = AdamW(pruner.model.parameters(), 0.1, weight_decay=0.5)
    pruner.mask_optimizer_state(late)
    pruner.step(5)
    before, mask = dense(pruner)[0].detach().clone(), masks(pruner)[0]
    train(pruner, late, 0)
    assert torch.equal(dense(pruner)[0][~mask], before[~mask])


def test_a_copy_of_the_pruner_looks_after_an_optimizer_once_it_is_handed_over() -> None:
    pruner = pruner_of()
    optimizer = AdamW(pruner.model.parameters(), 0.1, weight_decay=0.5)
    pruner.mask_optimizer_state(optimizer)
    twin, other = copy.deepcopy((pruner, optimizer))
    twin.mask_optimizer_state(other)
    for one, theirs in ((pruner, optimizer), (twin, other)):
        one.step(5)
        before, mask = dense(one)[0].detach().clone(), masks(one)[0]
        train(one, theirs, 0)
        assert torch.equal(dense(one)[0][~mask], before[~mask])
        assert (dense(one)[0][mask] != before[mask]).any()
    twin.release_optimizers()
    assert len(optimizer._optimizer_step_pre_hooks) == 1


def test_only_a_prepared_model_has_masks_to_look_after() -> None:
    model = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="must be prepared"):
        MagnitudePruner(model).mask_optimizer_state(SGD(model.parameters(), 0.1))


class UpAndDown(SparsityScheduleBase):
    """Every sixth step a little more, in between less."""

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        return min(target_sparsity, (step_count // 6 + [0, 1, 4, 2, 5, 3][step_count % 6]) / 10)


SCHEMES: list[Any] = [
    PruningSpec().pruning_scheme,
    ChannelStructured(axis=1),
    BlockStructured(block_shape=(2, 2)),
    NMStructured(n=1, m=4),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: type(scheme).__name__)
@pytest.mark.parametrize("schedule", [RAMP, UpAndDown()], ids=["ramp", "up-and-down"])
@given(seed=st.integers(0, 2**20))
@settings(max_examples=8, deadline=None)
def test_without_regrowth_masks_only_shrink_whatever_the_weights_do(
    scheme: Any, schedule: Any, seed: int
) -> None:
    config = MagnitudePrunerConfig.uniform(0.75, schedule)
    assert config.global_config is not None
    spec = PruningSpec(target_sparsity=0.75, pruning_scheme=scheme)
    config.global_config.op_state_spec = {"*": spec}
    config.allow_regrowth = False
    pruner = MagnitudePruner(nn.Linear(8, 8), config)
    pruner.prepare()
    generator, before, most = torch.Generator().manual_seed(seed), masks(pruner)[0], 0
    for _ in range(14):
        with torch.no_grad():
            (weight,) = dense(pruner)
            mixed = weight.flatten()[torch.randperm(64, generator=generator)].view(8, 8)
            # The worst case: what is pruned is now the largest, what is kept may be zero.
            weight.copy_(torch.where(before, (mixed * 10).round(), mixed.abs() + 100))
        pruner.step()
        (now,) = masks(pruner)
        assert bool((before | ~now).all())
        most = max(most, scheme.pruned_elements((8, 8), pruned(pruner).impl.sparsity))
        assert int((~now).sum()) == most
        before = now
    assert count_sparsity(pruner.model).regrown == 0


def pruned(pruner: MagnitudePruner) -> Any:
    return next(pruned_tensors(pruner.model))


def test_global_without_regrowth_is_exact_over_all() -> None:
    pruner = pruner_of(allocation="global", allow_regrowth=False)
    before = masks(pruner)
    for _ in range(9):
        with torch.no_grad():
            for weight, mask in zip(dense(pruner), before, strict=True):
                weight.copy_(torch.where(mask, torch.randn_like(weight), 100.0))
        pruner.step()
        now = masks(pruner)
        assert all(bool((a | ~b).all()) for a, b in zip(before, now, strict=True))
        assert sum(int((~mask).sum()) for mask in now) == int(88 * pruned(pruner).impl.sparsity)
        before = now
    assert count_sparsity(pruner.model).regrown == 0


def test_regrown_weights_are_counted() -> None:
    # Of 48 a step of the ramp prunes about 4 more; of 40 about 3 or 4.
    pruner = pruner_of()
    pruner.step(3)
    assert count_sparsity(pruner.model).regrown == 0
    revive(pruner, 3)
    pruner.step()
    report = count_sparsity(pruner.model)
    assert [layer.regrown for layer in report.layers] == [3, 0]
    assert report.regrown == 3
    assert count_sparsity(nn.Linear(3, 3)).regrown == 0
    with torch.no_grad():
        dense(pruner)[1].copy_(torch.where(masks(pruner)[1], 0.0, dense(pruner)[1] + 1))
    fallen = int((~masks(pruner)[1]).sum())
    pruner.step()
    assert [layer.regrown for layer in count_sparsity(pruner.model).layers] == [3, fallen]
    other = pruner_of()
    other.model.load_state_dict(pruner.model.state_dict())
    assert [layer.regrown for layer in count_sparsity(other.model).layers] == [3, fallen]
    revive(other, 2)
    other.step()
    assert [layer.regrown for layer in count_sparsity(other.model).layers] == [5, fallen]


def test_control_without_regrowth_the_same_weights_do_not_come_back() -> None:
    pruner = pruner_of(allow_regrowth=False)
    pruner.step(3)
    places = revive(pruner, 3)
    pruner.step()
    assert not masks(pruner)[0].flatten()[places].any()
    assert count_sparsity(pruner.model).regrown == 0
