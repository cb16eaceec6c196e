"""What can be loaded by ``prepare`` and ``load_state_dict``, and what does not fit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningSpec,
)
from coreai_opt.pruning.spec import NMStructured
from coreai_opt.pruning.spec.prune_impl import as_bits
from tests.helpers.pruning import impl, net
from tests.helpers.pruning.reference_masks import (
    GAPS,
    LAYERS,
    numbers,
    of,
    prepared,
    regrown,
    same,
    theirs,
    through_a_file,
    train,
    with_documented_masks,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::coreai_opt.pruning.errors.UnreachableSparsityWarning"
)


def former(model: nn.Module) -> dict[str, Any]:
    """The state dict that was written before the step had an entry of its own."""
    state = {}
    for key, value in model.state_dict().items():
        if key.endswith(".step_count"):
            criterion = impl(model, key.partition(".")[0])
            told = [criterion.sparsity, criterion.scheduled, int(value), criterion.regrown]
            taylor = [criterion._passes, criterion._used] if hasattr(criterion, "_passes") else []
            state[key.replace("step_count", "_extra_state")] = as_bits([*told, *taylor])
        elif not key.endswith("_extra_state"):
            state[key] = value
    return state


@pytest.mark.parametrize("algo", ["default", "random", "taylor"])
@pytest.mark.parametrize("way", ["load_state_dict", "prepare"])
def test_a_former_checkpoint_goes_on(algo: str, way: str) -> None:
    spec = PruningSpec(target_sparsity=0.8, pruning_algo=algo)
    module = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=GAPS)
    config = MagnitudePrunerConfig(global_config=module)

    def steps(pruner: MagnitudePruner, first: int, last: int) -> list[list[Tensor]]:
        seen = []
        for step in range(first, last):
            pruner.model.zero_grad()
            torch.manual_seed(step)
            pruner.model(torch.rand(3, 7)).square().mean().backward()
            seen += train(pruner, step, step + 1)
        return seen

    pruner, model = prepared(config)
    steps(pruner, 0, 7)
    state = through_a_file(former(model))
    ours = MagnitudePruner(net(), config)
    if way == "prepare":
        ours.prepare(state_dict=state)
    else:
        ours.prepare().load_state_dict(state, strict=True)
    assert (numbers(ours), regrown(ours)) == (numbers(pruner), regrown(pruner))
    assert same(steps(ours, 7, 22), steps(pruner, 7, 22))


def spoiled(**changes: Any) -> dict[str, Any]:
    pruner, model = prepared(of())
    train(pruner, 0, 7)
    there = theirs()
    there.load_state_dict(model.state_dict())
    state = dict(there.state_dict())
    for name, value in changes.items():
        key = f"2.parametrizations.weight.0.{name}"
        state[key] = value(state[key]) if callable(value) else value
    return state


SPOILED = [
    ({"step_count": torch.tensor(3)}, r"different steps: .*0\.step_count' is 7 and .* is 3"),
    ({"step_count": torch.tensor(-1)}, "step_count is -1"),
    ({"step_count": torch.tensor(7.5)}, "step_count is 7.5"),
    ({"step_count": torch.tensor(torch.inf)}, "step_count is inf"),
    ({"step_count": torch.tensor([7, 7])}, "allowed: one whole number"),
    ({"mask": lambda mask: mask * 0.5}, r"2\.parametrizations\.weight\.0\.mask has values other"),
    ({"mask": lambda mask: mask / 0}, "values other than 0 and 1"),
    ({"mask": lambda mask: mask.T}, r"is \[9, 5\] in it and \[5, 9\] here|size mismatch"),
]


@pytest.mark.parametrize(("changes", "message"), SPOILED)
@pytest.mark.parametrize("way", ["load_state_dict", "prepare"])
def test_a_spoiled_state_is_refused(way: str, changes: dict[str, Any], message: str) -> None:
    state = spoiled(**changes)
    pruner = MagnitudePruner(net(), of())
    if way == "load_state_dict":
        pruner.prepare()
        with pytest.raises(RuntimeError, match=message):
            pruner.model.load_state_dict(state)
    else:
        with pytest.raises(RuntimeError, match=message):
            pruner.prepare(state_dict=state)
        assert pruner.model.state_dict().keys() == net().state_dict().keys()


def test_a_missing_step_is_reported_as_torch_does() -> None:
    _, model = prepared(of())
    state = model.state_dict()
    del state["0.parametrizations.weight.0.step_count"]
    with pytest.raises(
        RuntimeError, match=r"Missing key.*0\.parametrizations\.weight\.0\.step_count"
    ):
        model.load_state_dict(state)
    model.load_state_dict(state, strict=False)


UNFIT: list[tuple[Callable[[], dict[str, Any]], str]] = [
    (lambda: dict(net().state_dict()), r"it has no mask of '0\.weight', '2\.weight'; allowed"),
    (
        lambda: dict(with_documented_masks(net(), "0").state_dict()),
        r"it has no mask of '2\.weight'; allowed",
    ),
    (lambda: {**theirs().state_dict(), "3.weight": torch.ones(2)}, r"the model lacks '3\.weight'"),
    (
        lambda: {key: v for key, v in theirs().state_dict().items() if key != "2.bias"},
        r"it lacks '2\.bias'",
    ),
]


@pytest.mark.parametrize(("make", "message"), UNFIT)
def test_a_state_dict_that_does_not_fit_says_what_differs(
    make: Callable[[], dict[str, Any]], message: str
) -> None:
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pruner = MagnitudePruner(model, of())
    with pytest.raises(RuntimeError, match=message) as caught:
        pruner.prepare(state_dict=make())
    assert str(caught.value).endswith("allowed: that of a model that was prepared with this config")
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    pruner.prepare()  # nothing is left that would refuse it


def test_a_mask_of_what_stays_dense_does_not_fit() -> None:
    pruner = MagnitudePruner(net(), of(module_name_configs={"2": None}))
    with pytest.raises(RuntimeError, match=r"it has a mask of what stays dense here '2\.weight'"):
        pruner.prepare(state_dict=theirs().state_dict())


def test_prepare_with_a_state_dict_follows_example_inputs() -> None:
    pruner, model = prepared(of())
    train(pruner, 0, 7)
    ours = MagnitudePruner(net(), of())
    ours.prepare((torch.rand(2, 7),), state_dict=model.state_dict())
    assert (numbers(ours), regrown(ours)) == (numbers(pruner), regrown(pruner))
    with pytest.raises(TypeError):
        MagnitudePruner(net()).prepare(None, model.state_dict())  # type: ignore[misc]


def test_state_of_the_n_of_m_pattern_is_known_by_its_step() -> None:
    config = of(NMStructured(n=2, m=3, axis=-1))
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5))
    pruner = MagnitudePruner(copy.deepcopy(model), config)
    pruner.prepare()
    pruner.step(7)
    state = {key: value.clone() for key, value in pruner.model.state_dict().items()}
    ours = MagnitudePruner(model, config)
    ours.prepare(state_dict=state)
    assert numbers(ours) == numbers(pruner)


def with_schedule_but_for(static: str) -> MagnitudePrunerConfig:
    named = {name: of().global_config for name in LAYERS if name not in static}
    return of(schedule=None, module_name_configs=named)


def steps_of(first: int, second: int) -> dict[str, Any]:
    state = dict(theirs().state_dict())
    for name, step in zip(LAYERS, (first, second), strict=True):
        state[f"{name}.parametrizations.weight.0.step_count"] = torch.tensor(step)
    return state


@pytest.mark.parametrize(
    ("static", "steps", "step"),
    [("0", (0, 7), 7), ("2", (7, 0), 7), ("0", (7, 7), 7), ("2", (0, 0), 0), ("02", (0, 0), 0)],
)
def test_a_mask_without_a_schedule_may_stand_at_0(
    static: str, steps: tuple[int, int], step: int
) -> None:
    config = with_schedule_but_for(static)
    pruner = MagnitudePruner(net(), config)
    pruner.prepare(state_dict=steps_of(*steps))
    assert pruner.step_count == step


@pytest.mark.parametrize(
    ("static", "steps"), [("0", (3, 7)), ("2", (7, 3)), ("0", (7, 0)), ("02", (0, 7)), ("", (0, 7))]
)
def test_other_steps_that_differ_are_refused(static: str, steps: tuple[int, int]) -> None:
    config = with_schedule_but_for(static)
    with pytest.raises(RuntimeError, match="different steps"):
        MagnitudePruner(net(), config).prepare(state_dict=steps_of(*steps))
