"""Gradients of pruned weights are those of ``torch.where``, in graphs of all kinds."""

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.saving.folding import fold_masks
from tests.helpers.pruning import impl, net, original, prepared

pytestmark = pytest.mark.usefixtures("any_size")

Use = Callable[[Tensor, Tensor, Tensor], Tensor]
SIDE = 4
STILL = torch.linspace(-1, 2, SIDE * SIDE).reshape(SIDE, SIDE)

# What is made of a weight, of another leaf and of what has been made so far; all are square.
USES: dict[str, Use] = {
    "linear": lambda weight, other, last: nn.functional.linear(last, weight),
    "turned": lambda weight, other, last: last @ weight,
    "product": lambda weight, other, last: last * weight,
    "sum": lambda weight, other, last: last + weight,
    "of-both": lambda weight, other, last: (weight + other) * last,
    "both-as-they-are": lambda weight, other, last: weight + other,
    "cat": lambda weight, other, last: torch.cat([weight, other, last])[2 : 2 + SIDE],
    "cat-across": lambda weight, other, last: torch.cat([weight, last, weight], 1)[:, ::3],
    "stack": lambda weight, other, last: torch.stack([weight, other]).sum(0) + last,
    "slice": lambda weight, other, last: last + weight[1:2],
    "column": lambda weight, other, last: last * weight[:, 2:3],
    "view": lambda weight, other, last: last + weight.view(2, -1).reshape(SIDE, SIDE),
    "transposed": lambda weight, other, last: last - weight.t(),
    "expanded": lambda weight, other, last: last * weight.sum(),
    "expanded-rows": lambda weight, other, last: last + weight.sum(0),
    "itself": lambda weight, other, last: weight,
    "copied": lambda weight, other, last: last + weight.clone().mul_(2),
    "chosen": lambda weight, other, last: last + weight[[0, 0, 3, 1]],
    "conv": lambda weight, other, last: nn.functional.conv1d(last[None], weight[:, :, None])[0],
    "squashed": lambda weight, other, last: torch.tanh(weight) + torch.exp(-last.square()),
}


class Leaves:
    """Two pruned layers, and where their masks are put on by hand."""

    def __init__(self, **fields: Any) -> None:
        layers = nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(2)))
        config = MagnitudePrunerConfig.uniform(0.5).model_copy(update=fields)
        self.pruner = MagnitudePruner(layers, config)
        self.pruner.prepare()
        self.originals = [original(layers, name) for name in "01"]
        self.masks = [impl(layers, name).mask for name in "01"]
        self.plain = [leaf.detach().clone().requires_grad_() for leaf in self.originals]
        self.extra = [torch.eye(SIDE).requires_grad_() for _ in range(2)]
        self.layers = layers

    def pruned(self) -> list[Tensor]:
        return [self.layers[0].weight, self.layers[1].weight, self.extra[0]]

    def reference(self) -> list[Tensor]:
        pairs = zip(self.masks, self.plain, strict=True)
        return [*(torch.where(mask, leaf, 0.0) for mask, leaf in pairs), self.extra[1]]

    def check(self) -> None:
        """Compare all gradients, and see that no pruned element has one."""
        for mine, theirs in zip(self.originals, self.plain, strict=True):
            _same(mine.grad, theirs.grad)
        _same(self.extra[0].grad, self.extra[1].grad)
        for leaf, mask in zip(self.originals, self.masks, strict=True):
            assert leaf.grad is None or not leaf.grad[~mask].any()


def _same(mine: Tensor | None, theirs: Tensor | None) -> None:
    assert (mine is None) == (theirs is None)
    if mine is not None:
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


Plan = list[tuple[str, int, int]]
PLANS = st.lists(
    st.tuples(st.sampled_from(sorted(USES)), st.integers(0, 2), st.integers(0, 2)),
    min_size=1,
    max_size=4,
)


def build(plan: Plan, leaves: list[Tensor]) -> Tensor:
    """Apply uses one after the other, each to two of the leaves."""
    last = STILL
    for name, one, other in plan:
        last = USES[name](leaves[one], leaves[other], last)
    return last


@pytest.mark.parametrize("regrowth", [True, False])
@given(st.lists(PLANS, min_size=1, max_size=3), st.booleans(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_random_graphs_have_the_gradients_of_where(
    regrowth: bool, plans: list[Plan], together: bool, plainly: bool
) -> None:
    leaves = Leaves(allow_regrowth=regrowth)
    for get in (leaves.pruned, leaves.reference):
        losses = []
        for plan in plans:
            result = build(plan, get())
            loss = result.sum() if plainly else (result * STILL).sum()
            if not loss.requires_grad:
                continue
            losses.append(loss)
            if not together:
                loss.backward()
        if together and losses:
            torch.autograd.backward(losses)
    leaves.check()


@pytest.mark.parametrize("name", sorted(USES))
@pytest.mark.parametrize("regrowth", [True, False])
def test_each_use_by_backward_by_grad_and_differentiated_again(name: str, regrowth: bool) -> None:
    leaves = Leaves(allow_regrowth=regrowth)
    found = []
    for get, of in ((leaves.pruned, leaves.originals), (leaves.reference, leaves.plain)):
        inputs = [of[0], leaves.extra[0 if get == leaves.pruned else 1]]
        result = build([(name, 0, 2), ("squashed", 0, 1)], get())
        result.sum().backward(retain_graph=True)
        result.sum().backward(retain_graph=True)
        first = torch.autograd.grad(
            result.square().sum(), inputs, allow_unused=True, retain_graph=True
        )
        again = torch.autograd.grad(result.sum(), inputs, create_graph=True, allow_unused=True)
        penalty = sum(each.square().sum() for each in again if each is not None)
        second = torch.autograd.grad(penalty, inputs, allow_unused=True)
        found.append([*first, *again, *second])
    for mine, theirs in zip(*found, strict=True):
        _same(mine, theirs)
    for each in (found[0][index] for index in (0, 2, 4)):
        assert not each[~leaves.masks[0]].any()
    leaves.check()


def keeping(kept: list[Tensor], gradient: Tensor) -> None:
    kept.append(gradient)


def keeping_memory(kept: list[Tensor], gradient: Tensor) -> None:
    kept.append(gradient.detach())


def keeping_storage(kept: list[Any], gradient: Tensor) -> None:
    kept.append(gradient.untyped_storage())


@pytest.mark.parametrize("keep", [keeping, keeping_memory, keeping_storage])
@pytest.mark.parametrize("name", ["linear", "product", "sum", "cat", "expanded", "itself"])
@pytest.mark.parametrize("on", ["masked", "dense"])
def test_a_gradient_that_somebody_keeps_is_left_to_him(keep: Any, name: str, on: str) -> None:
    kept: list[list[Any]] = [[], []]
    leaves = Leaves()
    for get, into in ((leaves.pruned, kept[0]), (leaves.reference, kept[1])):
        three = get()
        on_dense = leaves.originals[0] if get == leaves.pruned else leaves.plain[0]
        (three[0] if on == "masked" else on_dense).register_hook(partial(keep, into))
        (build([(name, 0, 2)], three) * STILL).sum().backward()
    leaves.check()
    if keep is not keeping_storage:
        mine, theirs = kept[0][0], kept[1][0]
        # A hook of the dense weight comes after the one that masks, or before it.
        assert torch.equal(mine, theirs) or torch.equal(mine * leaves.masks[0], theirs)
        if on == "masked":
            assert torch.equal(mine, theirs)


def test_a_retained_gradient_is_that_of_the_masked_weight() -> None:
    leaves = Leaves()
    weight = leaves.layers[0].weight
    weight.retain_grad()
    (weight * STILL).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, STILL)
    assert torch.equal(leaves.originals[0].grad, torch.where(leaves.masks[0], STILL, 0))


def test_what_is_given_to_backward_stays_as_it_is() -> None:
    leaves = Leaves()
    given_one = torch.full((SIDE, SIDE), 3.0)
    leaves.layers[0].weight.backward(given_one)
    leaves.layers[1].weight.view(-1).backward(given_one.view(-1))
    assert bool((given_one == 3).all())
    for leaf, mask in zip(leaves.originals, leaves.masks, strict=True):
        assert torch.equal(leaf.grad, 3.0 * mask)


def test_batched_gradients() -> None:
    _, model = prepared()
    output = model(torch.rand(3, 7)).sum(0)
    weight = original(model)
    (batched,) = torch.autograd.grad(
        output, weight, torch.eye(5), is_grads_batched=True, retain_graph=True
    )
    for row, single in enumerate(batched):
        (alone,) = torch.autograd.grad(output[row], weight, retain_graph=True)
        torch.testing.assert_close(single, alone)
        assert not single[~impl(model).mask].any()


@pytest.mark.parametrize("trained_before", [True, False])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
@pytest.mark.parametrize("regrowth", [True, False])
def test_transforms_of_functions_leave_nothing_behind(trained_before: bool, regrowth: bool) -> None:
    config = MagnitudePrunerConfig.uniform(0.5)
    config.allow_regrowth = regrowth
    model = MagnitudePruner(net(), config).prepare()
    plain = copy.deepcopy(model)
    batch = torch.rand(4, 7)
    if trained_before:
        model(batch).sum().backward()
        model.zero_grad()
    fold_masks(plain)
    waiting = model(batch).sum()  # its graph keeps the memory of the masked weights
    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        torch.testing.assert_close(transform(model)(batch[0]), transform(plain)(batch[0]))
    torch.testing.assert_close(torch.vmap(model)(batch), plain(batch))
    tangent = torch.ones(7)
    _, mine = torch.func.jvp(model, (batch[0],), (tangent,))
    torch.testing.assert_close(mine, torch.func.jvp(plain, (batch[0],), (tangent,))[1])
    waiting.backward()
    model.zero_grad()
    torch.vmap(model)(batch).square().sum().backward()
    plain(batch).square().sum().backward()
    expected = torch.where(impl(model).mask, plain[0].weight.grad, 0)
    torch.testing.assert_close(original(model).grad, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
@pytest.mark.parametrize("regrowth", [True, False])
def test_gradients_by_sample_and_forward_derivatives_of_parameters(regrowth: bool) -> None:
    config = MagnitudePrunerConfig.uniform(0.5)
    config.allow_regrowth = regrowth
    model = MagnitudePruner(net(), config).prepare()
    named = {name: value.detach() for name, value in model.named_parameters()}
    batch, key = torch.rand(4, 7), "0.parametrizations.weight.original"

    def loss(parameters: Any, one: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (one,)).square().sum()

    by_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(named, batch)[key]
    for one, mine in zip(batch, by_sample, strict=True):
        model.zero_grad()
        model(one).square().sum().backward()
        torch.testing.assert_close(mine, original(model).grad)
    still = {name: torch.zeros_like(value) for name, value in named.items()}
    tangent = torch.rand_like(named[key])
    _, found = torch.func.jvp(
        lambda parameters: loss(parameters, batch), (named,), ({**still, key: tangent},)
    )
    torch.testing.assert_close(found, (by_sample * tangent).sum())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_compute_the_same_gradients(reentrant: bool) -> None:
    _, model = prepared()
    batch = torch.rand(4, 7, requires_grad=True)
    model(batch).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    hidden = checkpoint(model[:2], batch, use_reentrant=reentrant)
    checkpoint(model[2], hidden, use_reentrant=reentrant).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_has_the_same_gradients(backend: str) -> None:
    torch._dynamo.reset()
    _, model = prepared()
    compiled: Any = torch.compile(model, backend=backend)
    batch = torch.rand(4, 7)
    found: list[list[Tensor]] = []
    for each in (compiled, model, compiled):  # with a hook on the weight, and without
        model.zero_grad()
        each(batch).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for other in found[1:]:
        for one, gradient in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, gradient)
    torch._dynamo.reset()


@pytest.fixture
def often_switched() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("often_switched")
def test_threads_that_train_one_model_see_their_own_gradients() -> None:
    _, model = prepared()
    batches = [torch.rand(64, 7) for _ in range(4)]
    weights = list(model.parameters())
    expected = [torch.autograd.grad(model(batch).square().sum(), weights) for batch in batches]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(30):
            found = torch.autograd.grad(model(batches[index]).square().sum(), weights)
            if not all(map(torch.equal, found, expected[index])):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
