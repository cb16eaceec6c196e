"""One tensor under several names: pruned once, and still one tensor afterwards."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    ModuleMagnitudePrunerConfig,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.errors import ConflictingConfigError
from coreai_opt.pruning.spec import PruningSpec
from tests.helpers.pruning.models import Language, Tied, Twice

RAMP = PolynomialDecaySchedule(total_iters=3, power=1)


KINDS: list[Any] = [Tied, Language, Twice]


def both(model: Any) -> list[Any]:
    return [model.get_submodule(name) for name in (model.first_name, model.second_name)]


def originals(model: Any) -> list[nn.Parameter]:
    return [module.parametrizations.weight.original for module in both(model)]


def masks(model: Any) -> list[Tensor]:
    return [module.parametrizations.weight[0].mask for module in both(model)]


def shared(values: list[Any]) -> bool:
    return all(value is values[0] for value in values)


def pruner_of(model: nn.Module, schedule: Any = None, inputs: bool = False) -> MagnitudePruner:
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5, schedule))
    pruner.prepare(model.batch() if inputs else None)
    return pruner


@pytest.fixture(params=KINDS, ids=[kind.__name__ for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("inputs", [False, True], ids=["type", "trace"])
def test_it_is_pruned_once_and_masked_in_both_places(kind: Any, inputs: bool) -> None:
    model = kind()
    weight, count = model.get_submodule(kind.first_name).weight, len(list(model.parameters()))
    pruner_of(model, inputs=inputs)
    assert shared([*originals(model), weight])
    assert shared(masks(model))
    assert int((~masks(model)[0]).sum()) == 10
    first, second = (module.weight for module in both(model))
    assert torch.equal(first, second)
    assert torch.equal(first, torch.where(masks(model)[0], weight, 0.0))
    assert len(list(model.parameters())) == count


def test_it_is_counted_once_under_its_first_name(kind: Any) -> None:
    report = count_sparsity(pruner_of(kind()).model)
    first = f"{kind.first_name}.weight"
    assert [layer.name for layer in report.layers] == [first, "between.weight"]
    assert [(layer.elements, layer.nonzero) for layer in report.layers[:1]] == [(20, 10)]
    dense = count_sparsity(kind())
    assert [layer.name for layer in dense.layers] == [first, "between.weight"]


def test_the_gradient_is_the_sum_of_both_uses(kind: Any) -> None:
    model = pruner_of(kind()).model
    mask, batch = masks(model)[0], model.batch()
    model(batch).square().sum().backward()
    (gradient,) = [weight.grad for weight in originals(model)[:1]]
    parts = []
    for silent in both(model):
        # The same sum with one of the uses cut off; a shared module is one use of two calls.
        other = copy.deepcopy(model)
        other.zero_grad()
        cut = other.get_submodule(kind.first_name if silent is both(model)[0] else kind.second_name)
        cut.forward = plain(cut, kind)
        other(batch).square().sum().backward()
        parts.append(originals(other)[0].grad)
    assert gradient is not None
    assert gradient[~mask].count_nonzero() == 0
    if kind is not Twice:
        torch.testing.assert_close(gradient, parts[0] + parts[1])
        assert all(part.count_nonzero() > 0 for part in parts)


def plain(module: Any, kind: Any) -> Any:
    """The forward of a module, through which no gradient reaches its weight."""
    weight = module.weight.detach().clone()
    if isinstance(module, nn.Embedding):
        return lambda batch: nn.functional.embedding(batch, weight)
    return lambda batch: nn.functional.linear(batch, weight, module.bias)


def test_an_optimizer_moves_both_places(kind: Any) -> None:
    model = pruner_of(kind()).model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, mask = originals(model)[0].detach().clone(), masks(model)[0]
    model(model.batch()).square().sum().backward()
    optimizer.step()
    first, second = (module.weight for module in both(model))
    assert torch.equal(first, second)
    assert not torch.equal(originals(model)[0][mask], before[mask])
    assert torch.equal(originals(model)[0][~mask], before[~mask])


def test_a_step_moves_both_masks(kind: Any) -> None:
    pruner = pruner_of(kind(), RAMP)
    seen = []
    for _ in range(3):
        seen.append([int((module.weight == 0).sum()) for module in both(pruner.model)])
        pruner.step()
    assert seen == [[0, 0], [5, 5], [10, 10]]
    assert shared(masks(pruner.model))


def test_a_copy_shares_within_itself(kind: Any) -> None:
    pruner = pruner_of(kind(), RAMP)
    twin = copy.deepcopy(pruner)
    assert shared(originals(twin.model))
    assert shared(masks(twin.model))
    assert originals(twin.model)[0] is not originals(pruner.model)[0]
    twin.step(2)
    assert [int((~mask).sum()) for mask in masks(twin.model)] == [10, 10]
    assert [int((~mask).sum()) for mask in masks(pruner.model)] == [0, 0]
    assert (twin.step_count, pruner.step_count) == (2, 0)


def test_a_state_dict_goes_into_a_fresh_model(kind: Any) -> None:
    before, after = pruner_of(kind(), RAMP), pruner_of(kind(), RAMP)
    before.step(1)
    after.model.load_state_dict(before.model.state_dict())
    assert shared(originals(after.model))
    assert torch.equal(originals(after.model)[0], originals(before.model)[0])
    assert torch.equal(masks(after.model)[1], masks(before.model)[0])
    for pruner in (before, after):
        pruner.step(1)
    assert after.step_count == 2
    assert torch.equal(masks(after.model)[1], masks(before.model)[0])


def test_finalize_keeps_the_tie_and_the_keys(kind: Any) -> None:
    torch.manual_seed(0)
    dense = kind()
    keys, count = list(dense.state_dict()), len(list(dense.parameters()))
    weight = dense.get_submodule(kind.first_name).weight
    pruner = pruner_of(dense)
    batch = dense.batch()
    output = dense(batch).detach()
    final = pruner.finalize()
    assert list(final.state_dict()) == keys
    assert shared([weight, *(module.weight for module in both(final))])
    assert len(list(final.parameters())) == count
    assert int((weight == 0).sum()) == 10
    assert torch.equal(final(batch), output)


def at(share: float | None, schedule: Any = None) -> Any:
    if share is None:
        return None
    spec = PruningSpec(target_sparsity=share)
    return ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=schedule)


CONFLICTS: list[Any] = [
    pytest.param(at(0.3), at(0.9), id="targets"),
    pytest.param(at(0.3), None, id="one-dense"),
    pytest.param(None, at(0.3), id="other-dense"),
    pytest.param(at(0.3, RAMP), at(0.3, ConstantSparsitySchedule()), id="schedules"),
    pytest.param(at(0.3, RAMP), at(0.3), id="one-schedule"),
]


@pytest.mark.parametrize(("one", "other"), CONFLICTS)
@pytest.mark.parametrize("model", [Tied, Twice])
def test_two_names_that_ask_for_two_things_are_refused(model: Any, one: Any, other: Any) -> None:
    names = {model.first_name: one, model.second_name: other}
    config = MagnitudePrunerConfig(module_name_configs=names)
    dense = model()
    for inputs in (None, dense.batch()):
        with pytest.raises(ConflictingConfigError, match="allowed: one config for both") as caught:
            MagnitudePruner(dense, config).prepare(inputs)
        places = {f"{model.first_name}.weight", f"{model.second_name}.weight"}
        assert {caught.value.name, caught.value.other} == places
    assert not hasattr(dense.between, "parametrizations")


AGREED: list[Any] = [
    pytest.param({"first": at(0.3), "second": at(0.3)}, {}, 6, id="both-the-same"),
    pytest.param({"first": None, "second": None}, {}, 0, id="both-dense"),
    pytest.param({"first": at(0.3)}, {}, 6, id="first-name-over-global"),
    pytest.param({"second": at(0.3)}, {}, 6, id="second-name-over-global"),
    pytest.param({"second": None}, {}, 0, id="none-by-name-over-global"),
    pytest.param({"second": at(0.3)}, {nn.Linear: at(0.9)}, 6, id="name-over-type"),
    pytest.param({}, {nn.Linear: at(0.9)}, 18, id="type-over-global"),
]


@pytest.mark.parametrize(("names", "types", "expected"), AGREED)
@pytest.mark.parametrize("inputs", [False, True], ids=["type", "trace"])
def test_what_is_more_specific_counts(names: Any, types: Any, expected: int, inputs: bool) -> None:
    config = MagnitudePrunerConfig(module_name_configs=names, module_type_configs=types)
    model = Tied()
    MagnitudePruner(model, config).prepare(model.batch() if inputs else None)
    assert [int((module.weight == 0).sum()) for module in both(model)] == [expected] * 2


def test_the_level_within_a_module_counts_too() -> None:
    covering = ModuleMagnitudePrunerConfig(
        module_state_spec={"weight": PruningSpec(target_sparsity=0.9)}
    )
    names: Any = {"first": at(0.3), "second": covering}
    model = Tied()
    MagnitudePruner(model, MagnitudePrunerConfig(module_name_configs=names)).prepare()
    assert int((model.first.weight == 0).sum()) == 18


def test_an_embedding_alone_is_not_pruned_and_may_be_left_out_by_name() -> None:
    config = MagnitudePrunerConfig(module_name_configs={"embedding": None})
    model = Language()
    MagnitudePruner(model, config).prepare()
    # By type only the head is seen; the embedding is no prunable layer.
    assert int((model.head.weight == 0).sum()) == 10
    model = Language()
    MagnitudePruner(model, config).prepare(model.batch())
    assert int((model.head.weight == 0).sum()) == 0


def test_three_places_share_one_mask() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    for layer in model:
        layer.weight = model[0].weight
    pruner = MagnitudePruner(model)
    pruner.prepare(torch.rand(2, 4))
    assert shared([layer.parametrizations.weight[0] for layer in model])
    assert shared([layer.weight for layer in pruner.finalize()])
    assert int((model[2].weight == 0).sum()) == 8
