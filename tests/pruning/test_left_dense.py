"""Weights that stay dense are counted by type; zeros that would not arrive are not promised."""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningError,
    count_sparsity,
)
from coreai_opt.pruning.errors import LeftDenseWarning, LostWriteWarning, UnseenForwardWarning
from coreai_opt.pruning.spec import PruningSpec
from coreai_opt.pruning.targets import pruned_tensors


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


def pruned(model: nn.Module) -> list[str]:
    return [tensor.name for tensor in pruned_tensors(model)]


def warned(model: nn.Module, config: Any, inputs: Any = None) -> list[Any]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        MagnitudePruner(model, config).prepare(inputs)
    return [one.message for one in told]


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
    assert told.left_out == {"body.weight": "frozen"}
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


class Standardised(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(images, weight, self.bias)


class Hooked(nn.Conv2d):
    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Any) -> Tensor:
        return super()._conv_forward(images, weight - weight.mean(), bias)


class Centred(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ (self.weight - self.weight.mean()).t()


class Turned(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.t() + self.bias


class Equalised(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight * 0.1, self.bias)


class Same(nn.Conv1d):
    def forward(self, signal: Tensor) -> Tensor:
        signal = F.pad(signal, (1, 1))
        return F.conv1d(signal, self.weight, self.bias, self.stride)


class Strange(nn.Linear):
    def forward(self, inputs: Tensor, scale: Tensor) -> Tensor:
        return super().forward(inputs) * scale


class InEvaluation(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.weight if self.training else self.weight - self.weight.mean()
        return F.linear(inputs, weight, self.bias)


class Called(nn.Linear):
    def __call__(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight - self.weight.mean(), self.bias)


class Dropped(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, F.dropout(self.weight - self.weight.mean(), 0.6))


class Noisy(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        noise = torch.randn_like(self.weight) if self.training else 0
        return F.linear(inputs, self.weight + noise, self.bias)


class Adapted(nn.Linear):
    def __init__(self) -> None:
        super().__init__(8, 8)
        self.up, self.down = nn.Buffer(torch.zeros(8, 1)), nn.Buffer(torch.randn(1, 8))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight + self.up @ self.down, self.bias)


class Twice(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + F.linear(inputs, self.weight - self.weight.mean())


class Cell(nn.GRUCell):
    def forward(self, inputs: Tensor, state: Any = None) -> Tensor:
        return super().forward(inputs, state)


class Sometimes(nn.Conv2d):
    def __init__(self, is_standardised: bool) -> None:
        super().__init__(4, 4, 3)
        self.is_standardised = is_standardised

    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean() if self.is_standardised else self.weight
        return self._conv_forward(images, weight, self.bias)


ALTERED = {
    "as many elements in the input": lambda: nn.Sequential(nn.ReLU(), Centred(20, 3))[1],
    "in evaluation alone": lambda: InEvaluation(6, 4),
    "by the call": lambda: Called(6, 4),
    "with zeros of its own": lambda: Dropped(6, 4),
    "one of its class": lambda: Sometimes(True),
    "standardised": lambda: Standardised(4, 8, 3, stride=2, dilation=2),
    "within _conv_forward": lambda: Hooked(4, 4, 1, groups=2),
    "centred, by a product": lambda: Centred(6, 3),
}
HARMLESS = {
    "noise in training": lambda: Noisy(6, 4),
    "one of its class": lambda: Sometimes(False),
    "turned": lambda: Turned(6, 6),
    "scaled": lambda: Equalised(6, 3),
    "padded": lambda: Same(4, 4, 3),
    "attention's own": lambda: nn.MultiheadAttention(8, 2).out_proj,
}


@pytest.mark.parametrize("make", ALTERED.values(), ids=ALTERED)
def test_a_weight_whose_zeros_would_not_arrive_is_left_dense(make: Any) -> None:
    model = nn.ModuleList([make(), nn.Linear(4, 4)])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    (told,) = warned(model, None)
    assert isinstance(told, LeftDenseWarning)
    assert told.left_out == {"0.weight": "altered"}
    assert pruned(model) == ["1.weight"]
    assert all(
        torch.equal(model[0].state_dict()[name[2:]], state[name])
        for name in state
        if name[0] == "0"
    )
    layers = {layer.name: layer for layer in count_sparsity(model).layers}
    assert layers["0.weight"].sparsity == 0


@pytest.mark.parametrize("make", HARMLESS.values(), ids=HARMLESS)
def test_a_layer_that_computes_with_the_zeros_is_pruned_without_a_word(make: Any) -> None:
    model = nn.ModuleList([make()])
    random = torch.get_rng_state()
    assert warned(model, None) == []
    assert torch.equal(torch.get_rng_state(), random)
    assert pruned(model) == ["0.weight"]


def test_a_model_of_nothing_else_is_left_dense_with_that_word() -> None:
    (told,) = warned(model := Standardised(4, 8, 3), None)
    assert isinstance(told, LeftDenseWarning)
    assert pruned(model) == []


def test_a_layer_that_cannot_be_called_is_named() -> None:
    (told,) = warned(model := nn.Sequential(Strange(4, 4)), None)
    assert isinstance(told, UnseenForwardWarning)
    assert told.names == ["0.weight"]
    assert "example_inputs" in str(told)
    assert pruned(model) == ["0.weight"]
    model = Strange(4, 4)
    assert warned(model, None, (torch.zeros(1, 4), torch.zeros(4))) == []
    assert pruned(model) == ["weight"]


@pytest.mark.parametrize("make", [Adapted, lambda: Twice(6, 4), lambda: Cell(4, 4)])
def test_a_layer_of_which_nothing_is_sure_is_named(make: Any) -> None:
    (told,) = warned(make(), None)
    assert isinstance(told, UnseenForwardWarning)


def test_layers_of_one_class_are_tried_each_with_its_settings() -> None:
    for order in ((False, True), (True, False)):
        model = nn.Sequential(*map(Sometimes, order))
        (told,) = warned(model, None)
        assert told.left_out == {f"{order.index(True)}.weight": "altered"}


def test_a_forward_pass_that_was_put_on_one_layer_may_hold_on_to_it() -> None:
    layer = nn.Linear(4, 4)
    layer.forward = lambda inputs: F.linear(inputs, layer.weight)  # type: ignore[method-assign]
    (told,) = warned(layer, None)
    assert isinstance(told, UnseenForwardWarning)
    assert pruned(layer) == ["weight"]


class Bounded(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.25)
        return super().forward(inputs)


class Clamped(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.clamp_(-1, 1)
        return super().forward(images)


@pytest.mark.parametrize("make", [lambda: Bounded(8, 8), lambda: Clamped(4, 4, 3)])
def test_a_layer_that_writes_to_its_weight_is_named(make: Any) -> None:
    (told,) = warned(make(), None)
    assert isinstance(told, LostWriteWarning)
    assert told.names == ["weight"]


def test_what_is_written_is_kept_where_nothing_comes_back() -> None:
    model = Bounded(8, 8)
    with torch.no_grad():
        model.weight.mul_(100)
    config = MagnitudePrunerConfig(allow_regrowth=False)
    assert warned(model, config) == []
    model(torch.randn(2, 8))
    assert float(model.weight.detach().norm(dim=1).max()) <= 0.2501


def test_an_embedding_with_a_maximal_norm_that_is_tied_is_named() -> None:
    model = nn.ModuleList([nn.Embedding(8, 4, max_norm=1.0), nn.Linear(4, 8)])
    model[1].weight = model[0].weight
    (told,) = warned(model, None)
    assert isinstance(told, LostWriteWarning)
    assert told.names == ["0.weight"]


def test_a_write_from_outside_the_layer_is_seen_by_following() -> None:
    class Prototypes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            self.head.weight.data = F.normalize(self.head.weight.data)
            return self.head(self.body(inputs))

    (told,) = warned(Prototypes(), None, torch.randn(2, 4))
    assert isinstance(told, LostWriteWarning)
    assert told.names == ["head.weight"]
