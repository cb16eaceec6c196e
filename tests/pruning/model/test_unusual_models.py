"""Models that are put together in unusual ways."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import ConstantSparsitySchedule, ModuleMagnitudePrunerConfig
from coreai_opt.pruning.errors import AlreadyParametrizedError


def test_a_module_under_two_names_gets_one_mask() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first

    model = Shared()
    MagnitudePruner(model).prepare()
    assert int((model.second.weight == 0).sum()) == 8
    assert torch.equal(model.first.weight, model.second.weight)
    assert [layer.name for layer in count_sparsity(model).layers] == ["first.weight"]


def test_a_weight_pruned_by_torchs_hooks_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    prune.l1_unstructured(model[1], "weight", amount=0.5)  # type: ignore[no-untyped-call]
    with pytest.raises(AlreadyParametrizedError, match=r"'1\.weight'"):
        MagnitudePruner(model).prepare()


def test_a_lazy_layer_left_out_does_not_stop_the_count() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4))
    config = MagnitudePrunerConfig(module_name_configs={"1": None})
    MagnitudePruner(model, config).prepare()
    assert [layer.name for layer in count_sparsity(model).layers] == ["0.weight"]


def test_a_deeper_name_may_cover_all_of_a_wider_one() -> None:
    half, most = (
        ModuleMagnitudePrunerConfig(op_state_spec={"weight": {"target_sparsity": sparsity}})  # type: ignore[dict-item]
        for sparsity in (0.5, 0.75)
    )
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
    MagnitudePruner(
        model, MagnitudePrunerConfig(module_name_configs={"0": half, "0.0": most})
    ).prepare()
    assert count_sparsity(model).achieved == 0.75


def test_a_schedule_class_is_no_schedule() -> None:
    with pytest.raises(ValueError, match="is no schedule"):
        ModuleMagnitudePrunerConfig(sparsity_schedule=ConstantSparsitySchedule)
