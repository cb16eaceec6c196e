"""The summary: hand-worked tables, and FLOPs against torch's own counter."""

import builtins
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.flop_counter import FlopCounterMode

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, summary
from coreai_opt.pruning.model.model_summary import compressed_bytes


def net() -> nn.Sequential:
    """Weights of 2x1x3 and 5x12, others of 2 + 4 + 5 elements."""
    return nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(12, 5), nn.ReLU()
    )


BATCH = torch.rand(4, 1, 8)
# By hand: the convolution meets 4 x 6 positions, the linear layer 4 rows. Of 6 and of 60 weights
# floor(6 * 0.7) = 4 and 42 are pruned.
CONV = {"elements": 6, "nonzero": 2, "flops_dense": 288, "flops_effective": 96, "bytes_dense": 24}
LINEAR = {
    "elements": 60,
    "nonzero": 18,
    "flops_dense": 480,
    "flops_effective": 144,
    "bytes_dense": 240,
}


def numbers(amount: Any, expected: dict[str, Any]) -> dict[str, Any]:
    return {name: amount.to_dict()[name] for name in expected}


@pytest.mark.parametrize("finalized", [False, True], ids=["prepared", "finalized"])
def test_every_weight_and_the_totals_by_hand(finalized: bool) -> None:
    pruner = MagnitudePruner(net(), MagnitudePrunerConfig.uniform(0.7))
    model = pruner.prepare()
    if finalized:
        model = pruner.finalize()
    found = summary(model, BATCH)
    conv, linear = found.layers
    assert [(layer.name, layer.shape) for layer in found.layers] == [
        ("0.weight", (2, 1, 3)),
        ("3.weight", (5, 12)),
    ]
    assert numbers(conv, CONV) == CONV
    assert numbers(linear, LINEAR) == LINEAR
    assert (conv.bytes_compressed, linear.bytes_compressed) == (2 * 4 + 1, 18 * 4 + 8)
    assert (conv.sparsity, linear.sparsity) == pytest.approx((4 / 6, 0.7))
    weights, other, total = found.weights, found.other, found.total
    assert (weights.elements, weights.nonzero, weights.bytes_dense) == (66, 20, 264)
    assert (weights.flops_dense, weights.flops_effective) == (768, 240)
    assert (weights.bytes_compressed, weights.sparsity) == (89, pytest.approx(46 / 66))
    assert (other.elements, other.nonzero, other.bytes_dense, other.bytes_compressed) == (
        *(11, 11),
        *(44, 44),
    )
    assert (other.flops_dense, other.flops_effective) == (0, 0)
    assert (total.elements, total.nonzero) == (77, 31)
    assert (total.flops_dense, total.flops_effective) == (768, 240)
    assert (total.bytes_dense, total.bytes_compressed) == (308, 133)
    assert total.compression == pytest.approx(308 / 133)


def test_without_inputs_there_are_no_operations() -> None:
    found = summary(MagnitudePruner(net()).prepare())
    for amount in (*found.layers, found.weights, found.other, found.total):
        assert (amount.flops_dense, amount.flops_effective) == (None, None)
    assert [layer.elements for layer in found.layers] == [6, 60]


def test_a_plain_model_is_dense_and_its_zeros_are_counted() -> None:
    model = net()
    with torch.no_grad():
        model[3].weight[:, :6] = -0.0
        model[3].bias.zero_()
    found = summary(model, BATCH)
    assert [layer.nonzero for layer in found.layers] == [6, 30]
    assert [layer.flops_effective for layer in found.layers] == [288, 240]
    assert found.other.nonzero == 11


@pytest.mark.parametrize(
    ("elements", "nonzero", "itemsize", "expected"),
    [
        (0, 0, 4, 0),
        (8, 0, 4, 1),
        (9, 0, 4, 2),
        (9, 1, 2, 4),
        (64, 62, 4, 256),
        (64, 61, 4, 252),
        (16, 14, 2, 30),
        (16, 15, 2, 32),
        (16, 16, 2, 32),
    ],
)
def test_the_compressed_size(elements: int, nonzero: int, itemsize: int, expected: int) -> None:
    assert compressed_bytes(elements, nonzero, itemsize) == expected


CASES: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Linear(6, 5), (6,)),
    (lambda: nn.Linear(6, 5, bias=False), (2, 3, 6)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    (lambda: nn.Conv2d(4, 6, (3, 2), padding=2, dilation=2), (2, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 8, 3, groups=4, stride=(1, 2)), (3, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 4, 3, groups=4, padding="same"), (4, 7, 8)),
    (lambda: nn.Conv3d(2, 4, 2, groups=2), (2, 2, 3, 4, 5)),
    (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5, 6)),
    (lambda: nn.ConvTranspose2d(4, 8, 3, groups=2), (2, 4, 5, 6)),
    (lambda: nn.ConvTranspose3d(2, 4, 2), (2, 2, 3, 3, 3)),
]


@pytest.mark.parametrize(("make", "shape"), CASES, ids=[str(make()) for make, _ in CASES])
def test_flops_are_those_of_torchs_counter(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model, batch = make(), torch.rand(shape)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(batch)
    found = summary(model, batch)
    assert found.total.flops_dense == found.layers[0].flops_dense == counter.get_total_flops() > 0
    pruned = summary(MagnitudePruner(model).prepare(), batch).layers[0]
    kept = pruned.elements - pruned.elements // 2
    assert pruned.flops_dense == counter.get_total_flops()
    assert pruned.flops_effective == pruned.flops_dense * kept // pruned.elements


def test_the_projections_of_attention_by_hand() -> None:
    model = nn.MultiheadAttention(6, 2)
    query = torch.rand(4, 3, 6)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(query, query, query)
    found = summary(MagnitudePruner(model).prepare(), (query, query, query))
    # 12 tokens through 18 x 6 and 6 x 6 weights.
    assert [layer.flops_dense for layer in found.layers] == [2 * 12 * 108, 2 * 12 * 36]
    assert [layer.flops_effective for layer in found.layers] == [12 * 108, 12 * 36]
    # The counter has the two products of 4 x 4 tokens over 3 features, for 2 heads and 3 samples.
    products = 2 * 2 * (2 * 3) * (4 * 4 * 3)
    assert counter.get_total_flops() == found.total.flops_dense + products


def test_attention_with_sizes_of_its_own_by_hand() -> None:
    model = nn.MultiheadAttention(6, 2, kdim=3, vdim=7, batch_first=True)
    found = summary(model, (torch.rand(2, 4, 6), torch.rand(2, 5, 3), torch.rand(2, 5, 7)))
    counted = {layer.name: layer.flops_dense for layer in found.layers}
    assert counted == {
        "q_proj_weight": 2 * 8 * 36,
        "k_proj_weight": 2 * 10 * 18,
        "v_proj_weight": 2 * 10 * 42,
        "out_proj.weight": 2 * 8 * 36,
    }


class Tied(nn.Module):
    """One tensor in an embedding and in two linear layers, one of which is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 5)
        self.first = nn.Linear(5, 5, bias=False)
        self.second = nn.Linear(5, 5, bias=False)
        self.first.weight = self.second.weight = self.embedding.weight

    def forward(self, index: Tensor) -> Tensor:
        return self.second(self.first(self.first(self.embedding(index))))


@pytest.mark.parametrize("prepared", [False, True])
def test_a_tied_weight_counts_once_and_all_its_calls_do(prepared: bool) -> None:
    model = Tied()
    if prepared:
        MagnitudePruner(model).prepare()
    found = summary(model, torch.tensor([0, 3, 4]))
    (layer,) = found.layers
    assert (layer.name, layer.elements, found.total.elements) == ("embedding.weight", 25, 25)
    assert layer.flops_dense == 3 * 2 * 3 * 25
    assert layer.flops_effective == layer.flops_dense * (13 if prepared else 25) // 25
    assert found.total.bytes_dense == 100


class Functional(nn.Module):
    """Hands a parameter of its own to an op, and a computed weight to another."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        self.register_buffer("scale", torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]).T)

    def forward(self, batch: Tensor) -> Tensor:
        return F.linear(F.linear(batch, self.kernel), self.scale * 2)


def test_what_a_module_hands_over_itself_is_a_layer_when_there_are_inputs() -> None:
    batch = torch.rand(3, 2)
    found = summary(Functional(), batch)
    (layer,) = found.layers
    assert (layer.name, layer.elements, layer.nonzero) == ("kernel", 4, 3)
    assert (layer.flops_dense, layer.flops_effective) == (24, 18)
    # Computed on the way: no parameter, but its operations count, 5 of 8 weights are not zero.
    assert (found.other.elements, found.other.bytes_dense) == (0, 0)
    assert (found.other.flops_dense, found.other.flops_effective) == (48, 30)
    assert (found.total.flops_dense, found.total.flops_effective) == (72, 48)
    without = summary(Functional())
    assert without.layers == ()
    assert (without.other.elements, without.other.nonzero) == (4, 4)
    pruner = MagnitudePruner(Functional())
    assert [layer.nonzero for layer in summary(pruner.prepare(batch), batch).layers] == [2]
    assert [layer.nonzero for layer in summary(pruner.model).layers] == [2]


def test_the_size_of_an_element_counts() -> None:
    found = summary(MagnitudePruner(nn.Linear(8, 8).to(torch.bfloat16)).prepare())
    assert (found.layers[0].bytes_dense, found.layers[0].bytes_compressed) == (128, 64 + 8)
    assert (found.other.bytes_dense, found.total.bytes_dense) == (16, 144)


def test_lazy_layers_are_left_out_until_a_batch_has_run() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.LazyLinear(2))
    found = summary(model)
    assert [layer.name for layer in found.layers] == ["0.weight"]
    assert found.total.elements == 16
    found = summary(model, torch.rand(3, 4))
    assert [layer.flops_dense for layer in found.layers] == [96, 48]
    assert found.total.elements == 26


def test_weights_computed_by_another_parametrization_count_as_they_are_used() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(4, 3)), spectral_norm(nn.Linear(3, 2)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert summary(model.train()).total.elements == 12 + 6 + 5
    found = summary(model, torch.rand(5, 4))
    assert [(layer.name, layer.elements) for layer in found.layers] == [
        ("0.weight", 12),
        ("1.weight", 6),
    ]
    assert [layer.flops_dense for layer in found.layers] == [120, 60]
    assert found.other.elements == 5  # the biases; the magnitudes belong to the weight
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_weights() -> None:
    found = summary(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), torch.rand(2, 3))
    assert (found.layers, found.weights.elements, found.weights.flops_dense) == ((), 0, 0)
    assert (found.weights.sparsity, found.weights.compression) == (0.0, 1.0)
    assert (found.total.elements, found.total.sparsity, found.total.flops_dense) == (6, 0.0, 0)
    assert summary(nn.ReLU()).weights.flops_dense is None


def test_an_empty_weight() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 1))
    model[0].weight = nn.Parameter(torch.empty(0, 1, 1))
    (layer,) = summary(model).layers
    assert (layer.elements, layer.sparsity, layer.bytes_compressed) == (0, 0.0, 0)


def test_to_dict_holds_plain_json_values() -> None:
    found = summary(MagnitudePruner(net()).prepare(), BATCH).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert list(found) == ["layers", "weights", "other", "total"]
    first = found["layers"][0]
    assert (first["name"], first["shape"], first["sparsity"]) == ("0.weight", [2, 1, 3], 0.5)
    assert found["total"]["compression"] == 308 / (3 * 4 + 1 + 30 * 4 + 8 + 44)


def test_to_frame_has_a_row_for_each_layer() -> None:
    frame = summary(MagnitudePruner(net()).prepare(), BATCH).to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["name"]) == ["0.weight", "3.weight"]
    assert list(frame["nonzero"]) == [3, 30]
    empty = summary(nn.ReLU()).to_frame()
    assert list(empty.columns) == list(frame.columns)
    assert len(empty) == 0


def test_a_missing_pandas_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hydra-coreai-opt\[pandas\]'"):
        summary(nn.ReLU()).to_frame()


def test_the_text_is_a_table() -> None:
    model = nn.ModuleDict({"[red]x": nn.Linear(100, 20)})
    lines = str(summary(MagnitudePruner(model).prepare())).splitlines()
    cells = [line.split() for line in lines]
    assert cells[0][:3] == ["weight", "shape", "elements"]
    row = ["[red]x.weight", "20x100", "2,000", "1,000", "50.00%", "8,000", "4,250"]
    assert row in cells
    assert ["total", "2,020", "1,020", "49.50%", "8,080", "4,330"] in cells
    assert "other parameters, as dense" in "\n".join(lines)


def test_summing_up_changes_nothing() -> None:
    model = MagnitudePruner(net()).prepare().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert summary(model, BATCH) == summary(model, BATCH)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
