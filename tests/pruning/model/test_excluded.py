"""Frozen weights: left dense unless a config names them, and said once."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    count_sparsity,
    load_pruned,
    save_pruned,
)
from coreai_opt.pruning.errors import LeftDenseWarning, NoPrunableLayerError, SavedModelError
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruningSpec

LEFT = r"left dense: 1 weight frozen \(requires_grad=False\) \('body\.0\.weight'\); a config by"


class Net(nn.Module):
    """A body of 32 and 64 weights, the first of them frozen, and a head of 24."""

    def __init__(self, frozen: tuple[str, ...] = ("body.0",)) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)
        for name in frozen:
            self.get_submodule(name).requires_grad_(False)


def pruned(model: nn.Module) -> list[str]:
    return [tensor.name for tensor in pruned_tensors(model)]


def half() -> ModuleMagnitudePrunerConfig:
    return ModuleMagnitudePrunerConfig(op_state_spec={"weight": PruningSpec(target_sparsity=0.5)})


def test_a_frozen_weight_is_left_dense_and_that_is_said() -> None:
    model = Net()
    with pytest.warns(LeftDenseWarning, match=LEFT) as told:
        MagnitudePruner(model).prepare()
    assert len(told) == 1
    assert pruned(model) == ["body.1.weight", "head.weight"]
    layers = {layer.name: layer for layer in count_sparsity(model).layers}
    assert (layers["body.0.weight"].target, layers["body.0.weight"].sparsity) == (None, 0)


@pytest.mark.parametrize("name", [r"body\.0", "body", "bod.*"])
def test_a_frozen_weight_that_a_config_names_is_pruned(name: str) -> None:
    model = Net()
    MagnitudePruner(model, MagnitudePrunerConfig(module_name_configs={name: half()})).prepare()
    assert pruned(model) == ["body.0.weight", "body.1.weight", "head.weight"]
    assert not model.body[0].parametrizations.weight.original.requires_grad
    assert int((model.body[0].weight == 0).sum()) == 16


def test_only_for_names_what_it_is_given() -> None:
    model = Net()
    MagnitudePruner(model, MagnitudePrunerConfig().only_for(r"body\.0")).prepare()
    assert pruned(model) == ["body.0.weight"]


def test_a_type_is_no_name() -> None:
    model = Net()
    config = MagnitudePrunerConfig(module_type_configs={nn.Linear: half()})
    with pytest.warns(LeftDenseWarning, match=LEFT):
        MagnitudePruner(model, config).prepare()
    assert pruned(model) == ["body.1.weight", "head.weight"]


def test_what_is_named_to_stay_dense_is_not_told() -> None:
    model = Net()
    config = MagnitudePrunerConfig(module_name_configs={r"body\.0": None})
    MagnitudePruner(model, config).prepare()
    assert pruned(model) == ["body.1.weight", "head.weight"]


def test_a_model_of_which_nothing_is_trained_is_pruned_as_asked() -> None:
    model = Net(frozen=("body", "head"))
    MagnitudePruner(model).prepare()
    assert pruned(model) == ["body.0.weight", "body.1.weight", "head.weight"]


def test_nothing_but_frozen_weights_is_an_error_that_names_them() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)), nn.LayerNorm(4))
    model[:5].requires_grad_(False)
    before = list(model.state_dict())
    message = (
        r"nothing to prune: all that the config reaches is 5 weights frozen "
        r"\(requires_grad=False\) \('0\.weight', '1\.weight', '2\.weight' and 2 more\); "
        r"allowed: a config for them by name"
    )
    with pytest.raises(NoPrunableLayerError, match=message) as refused:
        MagnitudePruner(model).prepare()
    assert refused.value.excluded == {f"{index}.weight": "frozen" for index in range(5)}
    assert list(model.state_dict()) == before


def test_a_frozen_weight_that_the_calls_lead_to_is_left_dense() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.rand(4, 4), requires_grad=False)
            self.two = nn.Parameter(torch.rand(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(nn.functional.linear(x, self.one), self.two)

    model = Direct()
    with pytest.warns(LeftDenseWarning, match="'one'"):
        MagnitudePruner(model).prepare(torch.rand(2, 4))
    assert pruned(model) == ["two"]


def test_a_shared_weight_is_named_by_either_of_its_names() -> None:
    model = Net(frozen=())
    model.body[1].weight = model.body[0].weight = nn.Parameter(torch.rand(8, 8), False)
    model.body[0].in_features = 8
    config = MagnitudePrunerConfig(module_name_configs={r"body\.1": half()})
    MagnitudePruner(model, config).prepare()
    assert pruned(model) == ["body.0.weight", "head.weight"]
    assert int((model.body[1].weight == 0).sum()) == 32


def test_a_frozen_weight_with_weight_norm_needs_no_config() -> None:
    model = Net(frozen=())
    parametrizations.weight_norm(model.body[0])
    model.body[0].requires_grad_(False)
    with pytest.warns(LeftDenseWarning, match=LEFT):
        MagnitudePruner(model).prepare()
    assert pruned(model) == ["body.1.weight", "head.weight"]


def unchanged(model: Net) -> None:
    """Leave it as it was in the training."""


def frozen(model: Net) -> None:
    model.requires_grad_(False)


def thawed(model: Net) -> None:
    model.requires_grad_(True)


@pytest.mark.parametrize("change", [unchanged, frozen, thawed])
def test_a_state_dict_says_which_weights_were_pruned(change: Callable[[Net], None]) -> None:
    trained = Net()
    with pytest.warns(LeftDenseWarning):
        MagnitudePruner(trained).prepare()
    model = Net()
    change(model)
    MagnitudePruner(model).prepare(masked=pruned(trained))
    model.load_state_dict(trained.state_dict())
    assert pruned(model) == ["body.1.weight", "head.weight"]


def test_a_saved_model_goes_on_with_the_config_that_left_weights_frozen(tmp_path: Path) -> None:
    model = Net()
    with pytest.warns(LeftDenseWarning):
        MagnitudePruner(model).prepare()
    save_pruned(model, tmp_path)
    loaded = Net()
    load_pruned(loaded, tmp_path, MagnitudePrunerConfig())
    assert pruned(loaded) == ["body.1.weight", "head.weight"]
    with pytest.raises(SavedModelError, match=r"it prunes without a saved mask: body\.0\.weight"):
        load_pruned(Net(frozen=()), tmp_path, MagnitudePrunerConfig())


def test_a_weight_that_was_pruned_before_it_was_frozen_keeps_its_saved_mask(tmp_path: Path) -> None:
    model = Net(frozen=())
    MagnitudePruner(model).prepare()
    save_pruned(model, tmp_path)
    loaded = Net()
    with warnings.catch_warnings(record=True) as told:
        load_pruned(loaded, tmp_path, MagnitudePrunerConfig())
    assert told == []
    assert pruned(loaded) == ["body.0.weight", "body.1.weight", "head.weight"]
