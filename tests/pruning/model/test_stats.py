"""Sparsity by counted zeros, against an independent count."""

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig, PolynomialDecaySchedule
from coreai_opt.pruning.model.dense_weights import DenseType
from coreai_opt.pruning.model.stats import LayerSparsity
from coreai_opt.pruning.spec import PruningSpec


def net() -> nn.Sequential:
    """Three prunable layers of 63, 45 and 72 weights, and one of another kind."""
    return nn.Sequential(
        nn.Linear(7, 9), nn.BatchNorm1d(9), nn.Linear(9, 5), nn.Conv2d(4, 2, 3, bias=False)
    )


def at(sparsity: float) -> ModuleMagnitudePrunerConfig:
    return ModuleMagnitudePrunerConfig(op_state_spec={"*": PruningSpec(target_sparsity=sparsity)})


def zeros(weight: Tensor) -> int:
    """Count zeros one by one."""
    return sum(value == 0 for value in weight.detach().flatten().tolist())


def pruned(model: nn.Module, **by_name: float | None) -> nn.Module:
    """Prune the layers of the names ``_0``, ``_2``, ``_3``; all others stay dense."""
    configs = {name[1:]: None if s is None else at(s) for name, s in by_name.items()}
    config = MagnitudePrunerConfig(global_config=None, module_name_configs=configs)
    return MagnitudePruner(model, config).prepare()


def test_every_layer_is_counted_with_its_name_shape_and_sparsity() -> None:
    model = pruned(net(), _0=0.5, _2=0.2, _3=0.9)
    report = count_sparsity(model)
    assert [layer.name for layer in report.layers] == ["0.weight", "2.weight", "3.weight"]
    assert [layer.shape for layer in report.layers] == [(9, 7), (5, 9), (2, 4, 3, 3)]
    assert [layer.elements for layer in report.layers] == [63, 45, 72]
    assert [layer.target for layer in report.layers] == [0.5, 0.2, 0.9]
    assert [layer.scheduled for layer in report.layers] == [0.5, 0.2, 0.9]
    counted = [layer.elements - layer.nonzero for layer in report.layers]
    assert counted == [zeros(model[index].weight) for index in (0, 2, 3)] == [31, 9, 64]
    assert [layer.sparsity for layer in report.layers] == pytest.approx([31 / 63, 9 / 45, 64 / 72])


def test_totals_are_over_all_masks() -> None:
    report = count_sparsity(pruned(net(), _0=0.5, _2=0.2, _3=0.9))
    assert (report.elements, report.nonzero) == (180, 180 - 31 - 9 - 64)
    assert report.achieved == pytest.approx(104 / 180)
    assert (
        report.target == report.scheduled == pytest.approx((0.5 * 63 + 0.2 * 45 + 0.9 * 72) / 180)
    )


def test_totals_leave_out_the_layers_without_a_mask() -> None:
    model = pruned(net(), _0=0.5, _2=None)
    with torch.no_grad():
        model[2].weight[0] = 0
    report = count_sparsity(model)
    assert [layer.target for layer in report.layers] == [0.5, None, None]
    assert [layer.scheduled for layer in report.layers] == [0.5, None, None]
    assert [layer.elements - layer.nonzero for layer in report.layers] == [31, 9, 0]
    assert [layer.name for layer in report.counted] == ["0.weight"]
    assert (report.elements, report.nonzero, report.target) == (63, 32, 0.5)
    assert report.achieved == pytest.approx(31 / 63)


def test_a_mask_that_prunes_nothing_counts_among_the_masks() -> None:
    report = count_sparsity(pruned(net(), _0=0.0, _2=0.2))
    assert [layer.name for layer in report.counted] == ["0.weight", "2.weight"]
    assert report.achieved == pytest.approx(9 / 108)


def test_a_dense_model_is_counted_as_a_whole() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[2].weight[0, 0] = -0.0
    report = count_sparsity(model)
    assert (report.elements, report.nonzero) == (180, 180 - 14 - 1)
    assert report.achieved == pytest.approx(15 / 180)
    assert (report.target, report.scheduled) == (0, 0)
    assert [layer.target for layer in report.layers] == [None, None, None]


def test_a_finalized_model_has_the_counts_of_the_prepared_one() -> None:
    pruner = MagnitudePruner(net(), MagnitudePrunerConfig.uniform(0.7))
    before = count_sparsity(pruner.prepare())
    after = count_sparsity(pruner.finalize())
    assert [layer.nonzero for layer in after.layers] == [layer.nonzero for layer in before.layers]
    assert [layer.name for layer in after.layers] == [layer.name for layer in before.layers]
    assert (after.achieved, after.target) == (before.achieved, 0)


def test_zeros_among_the_kept_weights_count_too() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight.zero_()
    (layer,) = count_sparsity(pruned(model, _0=0.5)).counted
    assert (layer.nonzero, layer.sparsity, layer.scheduled) == (0, 1.0, 0.5)


def test_scheduled_is_what_the_ramp_asks_for_now() -> None:
    ramp = PolynomialDecaySchedule(total_iters=5, power=1)
    pruner = MagnitudePruner(net(), MagnitudePrunerConfig.uniform(0.7, ramp))
    seen = [count_sparsity(pruner.prepare())]
    for _ in range(5):
        pruner.step()
        seen.append(count_sparsity(pruner.model))
    assert [report.scheduled for report in seen] == pytest.approx([0, 0.175, 0.35, 0.525, 0.7, 0.7])
    assert [report.target for report in seen] == pytest.approx([0.7] * 6)
    assert [180 - report.nonzero for report in seen[:3]] == [0, 11 + 7 + 12, 22 + 15 + 25]


def test_the_in_projection_of_attention_is_counted() -> None:
    model = MagnitudePruner(nn.MultiheadAttention(6, 2)).prepare()
    layers = count_sparsity(model).layers
    assert [(layer.name, layer.shape, layer.nonzero) for layer in layers] == [
        ("in_proj_weight", (18, 6), 54),
        ("out_proj.weight", (6, 6), 18),
    ]


@pytest.mark.parametrize("model", [nn.Sequential(), nn.ReLU(), nn.BatchNorm1d(3)])
def test_a_model_without_prunable_layers_has_an_empty_report(model: nn.Module) -> None:
    report = count_sparsity(model)
    assert (report.layers, report.elements, report.nonzero) == ([], 0, 0)
    assert (report.achieved, report.scheduled, report.target) == (0, 0, 0)


def test_an_empty_weight_is_not_sparse() -> None:
    assert LayerSparsity("head.weight", (0, 3), 0, 0, None, None).sparsity == 0


def test_what_stays_dense_is_counted_by_type() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing = nn.Parameter(torch.ones(4, 2))
            self.scale = nn.Parameter(torch.ones(4))

    model = nn.Sequential(
        nn.Embedding(6, 4, padding_idx=0), nn.Linear(4, 4), nn.Linear(4, 2), Own()
    )
    config = MagnitudePrunerConfig.uniform(0.5).without("0", "2", "3")
    MagnitudePruner(model, config).prepare()
    report = count_sparsity(model)
    assert report.left_dense == (
        DenseType("Embedding", 1, 24, 20),
        DenseType("Linear", 1, 8, 8),
        DenseType("Own", 1, 8, 8),
    )
    assert (report.elements, report.nonzero, report.achieved) == (16, 8, 0.5)
    assert (report.all_elements, report.all_nonzero) == (56, 44)
    assert report.of_all_weights == pytest.approx(12 / 56)


def test_a_tied_embedding_is_no_other_weight() -> None:
    model = nn.ModuleList([nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)])
    model[1].weight = model[0].weight
    assert count_sparsity(model).left_dense == (DenseType("Embedding", 1, 32, 32),)
    MagnitudePruner(model).prepare()
    report = count_sparsity(model)
    assert report.left_dense == ()
    assert report.of_all_weights == report.achieved == 0.5
