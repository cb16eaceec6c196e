"""Models that are put together in unusual ways."""

from torch import nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig


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
