"""What the pruner refuses, and what it says then."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig
from coreai_opt.pruning.errors import (
    AlreadyParametrizedError,
    DivergedWeightError,
    NoPrunableLayerError,
    UninitializedWeightError,
    UnknownModuleError,
)
from coreai_opt.pruning.spec import PruneImplBase
from tests.helpers.pruning import RAMP, impl, net, original, prepared, zeros


def test_a_second_prepare_is_refused() -> None:
    pruner, model = prepared(schedule=RAMP)
    for again in (pruner, MagnitudePruner(model), MagnitudePruner(nn.Sequential(model))):
        with pytest.raises(RuntimeError, match="already been prepared"):
            again.prepare()
    pruner.step()
    assert zeros(model) == [6, 4]


@pytest.mark.parametrize("method", ["step", "finalize", "at_target", "check_weights"])
def test_before_prepare_nothing_else_works(method: str) -> None:
    with pytest.raises(RuntimeError, match="must be prepared"):
        getattr(MagnitudePruner(net()), method)()


@pytest.mark.parametrize("method", ["step", "finalize", "check_weights"])
def test_after_finalize_nothing_else_works(method: str) -> None:
    pruner, _ = prepared(schedule=RAMP)
    pruner.finalize()
    with pytest.raises(RuntimeError, match="must be prepared"):
        getattr(pruner, method)()


def test_a_negative_count_is_refused() -> None:
    pruner, _ = prepared(schedule=RAMP)
    with pytest.raises(ValueError, match="count is -1"):
        pruner.step(count=-1)
    assert pruner.step_count == 0


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(3))


def lazy_with_weights() -> nn.Module:
    """At its first batch it becomes a Linear, and drops the class that holds the mask."""
    model = lazy()
    model.load_state_dict(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict())
    return model


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), parametrizations.weight_norm(nn.Linear(3, 3)))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


BROKEN = [
    pytest.param(lazy, UninitializedWeightError, "'1' is not initialised", id="lazy"),
    pytest.param(lazy_with_weights, UninitializedWeightError, "'1' is not", id="lazy-with-weights"),
    pytest.param(normed, AlreadyParametrizedError, r"'1\.weight' already carries", id="normed"),
]


@pytest.mark.parametrize(("make", "error", "message"), BROKEN)
def test_a_weight_that_a_mask_would_break_is_refused_before_anything_is_changed(
    make: Callable[[], nn.Module], error: type[PruningError], message: str
) -> None:
    model = make()
    with pytest.raises(error, match=message):
        MagnitudePruner(model).prepare()
    assert not hasattr(model[0], "parametrizations")


@pytest.mark.parametrize(("make", "left_out"), [(lazy, "1"), (normed, "1"), (tied, "0|1")])
def test_such_a_weight_may_be_left_out(make: Callable[[], nn.Module], left_out: str) -> None:
    model = nn.Sequential(*make(), nn.Linear(3, 3))
    config = MagnitudePrunerConfig(module_name_configs={left_out: None})
    MagnitudePruner(model, config).prepare()
    assert isinstance(impl(model, "2"), PruneImplBase)


def test_a_model_with_nothing_to_prune_is_told_what_can_be() -> None:
    with pytest.raises(NoPrunableLayerError, match=r"prunable: Linear, Conv1d, .*Attention"):
        MagnitudePruner(nn.Sequential(nn.ReLU(), nn.LayerNorm(3))).prepare()


def test_a_config_may_leave_every_weight_dense() -> None:
    model = net()
    pruner = MagnitudePruner(model, MagnitudePrunerConfig(global_config=None))
    with pytest.warns(UserWarning, match="leaves every weight dense"):
        assert pruner.prepare() is model
    pruner.step()
    assert pruner.at_target()
    assert pruner.finalize() is model
    assert list(model.state_dict()) == list(net().state_dict())


@pytest.mark.parametrize("pattern", ["head", "01", "1"])
def test_a_name_that_matches_no_weight_is_answered_with_the_layers(pattern: str) -> None:
    config = MagnitudePrunerConfig(module_name_configs={pattern: ModuleMagnitudePrunerConfig()})
    with pytest.raises(UnknownModuleError, match=f"'{pattern}' matches no .*allowed: 0, 2"):
        MagnitudePruner(net(), config).prepare()


def test_a_layer_left_dense_has_to_exist_but_not_to_be_prunable() -> None:
    dense = MagnitudePrunerConfig(module_name_configs={"1": None})
    MagnitudePruner(net(), dense).prepare()
    with pytest.raises(UnknownModuleError, match="'head'"):
        MagnitudePruner(net(), MagnitudePrunerConfig(module_name_configs={"head": None})).prepare()


class Wild:
    """A schedule that leaves the range at its second step."""

    def __init__(self, value: float) -> None:
        self.value = value

    def compute_sparsity(self, step_count: int, *_: Any) -> float:
        return 0.25 if step_count < 2 else self.value


@pytest.mark.parametrize("value", [1.5, -0.25, float("nan")])
def test_a_schedule_that_leaves_0_to_1_is_refused_by_name(value: float) -> None:
    pruner, model = prepared(schedule=Wild(value))
    pruner.step()
    with pytest.raises(PruningError, match=rf"sparsity of {value} for '0\.weight' at step 2"):
        pruner.step()
    assert zeros(model) == [15, 11]


def test_check_weights_names_the_layers_with_nan() -> None:
    pruner, model = prepared()
    pruner.check_weights()
    with torch.no_grad():
        original(model)[0, 0] = torch.inf
        model[0].bias[0] = torch.nan
    pruner.check_weights()
    with torch.no_grad():
        original(model, "2")[0, 0] = torch.nan
    with pytest.raises(DivergedWeightError, match=r"NaN in '2\.weight';") as caught:
        pruner.check_weights()
    assert caught.value.names == ["2.weight"]


def test_an_error_about_nan_lists_the_first_weights_and_their_number() -> None:
    error = DivergedWeightError([f"{index}.weight" for index in range(100)])
    assert "NaN in '0.weight', '1.weight', '2.weight' and 97 more;" in str(error)
    assert len(error.names) == 100


def test_infinities_of_both_signs_are_no_nan() -> None:
    pruner, model = prepared(schedule=RAMP)
    with torch.no_grad():  # their sum is NaN
        original(model)[0, :2] = torch.tensor([torch.inf, -torch.inf])
    pruner.check_weights()
    pruner.step()
    assert impl(model).mask[0, :2].all()
