"""Weights that stay dense are counted by type; some are pruned where a config names them."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningError,
)
from coreai_opt.pruning.errors import LeftDenseWarning
from coreai_opt.pruning.spec import PruningSpec
from tests.helpers.pruning import pruned, warned


class Mixer(nn.Module):
    """Multiplies with parameters of its own, in ways that no prunable op sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(8, 8))
        self.second = nn.Parameter(torch.randn(8, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.bias_table = nn.Parameter(torch.zeros(4, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("bi,ij->bj", inputs @ self.first, self.second) * self.scale


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.bag = nn.EmbeddingBag(5, 8)
        self.pair = nn.Bilinear(8, 8, 8)
        self.body = nn.Linear(8, 8)
        self.mixer = Mixer()

    def forward(self, tokens: Tensor) -> Tensor:
        inputs = self.embed(tokens) + self.bag(tokens[:, None] % 5)
        return self.mixer(self.body(self.pair(inputs, inputs)))


TOKENS = torch.arange(6)
SPEC = {"weight": PruningSpec(target_sparsity=0.75)}
EACH = ModuleMagnitudePrunerConfig(op_state_spec=SPEC)


@pytest.mark.parametrize("inputs", [None, TOKENS], ids=["by-type", "by-call"])
@pytest.mark.parametrize("spec", ["weight", "*"])
def test_what_stays_dense_is_counted_by_type_in_one_warning(inputs: Any, spec: str) -> None:
    config = MagnitudePrunerConfig(
        global_config=ModuleMagnitudePrunerConfig(op_state_spec={spec: PruningSpec()})
    )
    (told,) = warned(model := Net(), config, inputs)
    assert isinstance(told, LeftDenseWarning)
    found = {weight.name: (weight.kind, weight.elements) for weight in told.unreached}
    assert found == {
        "embed.weight": ("Embedding", 80),
        "bag.weight": ("EmbeddingBag", 40),
        "pair.weight": ("Bilinear", 512),
        "mixer.first": ("Mixer", 64),
        "mixer.second": ("Mixer", 32),
    }
    assert "2 weights of Mixer ('mixer.first', 'mixer.second'), 96 elements" in str(told)
    assert ("example_inputs" in str(told)) == (inputs is None)
    assert pruned(model) == ["body.weight"]


def test_reasons_stand_in_one_warning() -> None:
    model = Net()
    model.body.requires_grad_(False)
    model.add_module("head", nn.Linear(4, 4))
    (told,) = warned(model, None)
    assert told.excluded == {"body.weight": "frozen"}
    assert len(told.unreached) == 5
    assert "1 weight frozen" in str(told)
    assert "1 weight of Bilinear" in str(told)


DELIBERATE = {
    "global": {"global_config": None, "module_name_configs": {"body": EACH}},
    "names": {"module_name_configs": dict.fromkeys(["embed", "bag", "pair", "mixer"])},
    "types": {
        "module_type_configs": dict.fromkeys([nn.Embedding, nn.EmbeddingBag, nn.Bilinear, Mixer])
    },
    "no spec": {
        "global_config": ModuleMagnitudePrunerConfig(op_state_spec=None),
        "module_name_configs": {"body": EACH},
    },
    "another spec": {
        "global_config": ModuleMagnitudePrunerConfig(
            op_state_spec={"in_proj_weight": PruningSpec()}
        ),
        "module_name_configs": {"body": EACH},
    },
}


@pytest.mark.parametrize("fields", DELIBERATE.values(), ids=DELIBERATE)
def test_what_a_config_leaves_dense_is_not_warned_about(fields: Any) -> None:
    assert warned(model := Net(), MagnitudePrunerConfig(**fields)) == []
    assert pruned(model) == ["body.weight"]


def test_layers_that_did_not_run_are_counted() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.add_module("unused", nn.Linear(4, 4))
    model.forward = lambda inputs: model[0](inputs)  # type: ignore[method-assign]
    (told,) = warned(model, None, torch.zeros(1, 4))
    assert [weight.name for weight in told.unreached] == ["unused.weight"]


def test_restoring_says_nothing_again() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MagnitudePruner(Net()).prepare(masked=["body.weight"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"module_type_configs": {nn.Embedding: EACH}}, {"embed.weight"}),
        ({"module_type_configs": {"torch.nn.Bilinear": EACH}}, {"pair.weight"}),
        ({"module_name_configs": {"bag": EACH, "pair": EACH}}, {"bag.weight", "pair.weight"}),
        ({"module_name_configs": {"p.*|body": EACH}}, set()),  # means the layers
        ({"module_type_configs": {Net: EACH}}, set()),
    ],
)
@pytest.mark.parametrize("inputs", [None, TOKENS], ids=["by-type", "by-call"])
def test_embeddings_are_pruned_where_they_are_named(
    fields: Any, expected: set[str], inputs: Any
) -> None:
    model = Net()
    (told,) = warned(model, MagnitudePrunerConfig(**fields), inputs)
    assert set(pruned(model)) == {*expected, "body.weight"}
    assert not {weight.name for weight in told.unreached} & expected
    for name in expected:
        weight = model.get_submodule(name.rpartition(".")[0]).weight
        assert int((weight == 0).sum()) == weight.numel() * 3 // 4
    model(TOKENS).sum().backward()


def test_an_embedding_with_sparse_gradients_is_refused() -> None:
    model = nn.ModuleList([nn.Embedding(4, 4, sparse=True), nn.Linear(4, 4)])
    config = MagnitudePrunerConfig(module_type_configs={nn.Embedding: EACH})
    with pytest.raises(PruningError, match=r"'0\.weight'.* sparse"):
        MagnitudePruner(model, config).prepare()


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.gain = nn.Parameter(torch.ones(8, 1))
        self.norm, self.body = nn.LayerNorm([8, 6]), nn.Linear(8, 4)


def test_scales_and_normalization_are_no_weights() -> None:
    assert warned(model := Scaled(), None) == []
    assert pruned(model) == ["body.weight"]
