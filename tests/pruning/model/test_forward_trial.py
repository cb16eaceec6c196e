"""Layers with a forward pass of their own: zeros that would not arrive are not promised."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePrunerConfig, count_sparsity
from coreai_opt.pruning.errors import LeftDenseWarning, LostWriteWarning, UnseenForwardWarning
from tests.helpers.pruning import pruned, warned


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
    assert told.excluded == {"0.weight": "altered"}
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
        assert told.excluded == {f"{order.index(True)}.weight": "altered"}


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
