"""Recurrent layers: their weights, their ops, and how masked weights reach them.

``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` hand their op a list of tensors that they keep beside their
parameters. torch 2.6 to 2.13 call it ``_flat_weights``, and make it anew in ``_init_flat_weights``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "RECURRENT_OPS",
    "RECURRENT_TYPES",
    "RECURRENT_WEIGHT",
    "give_masked_weights",
    "give_plain_weights",
    "recurrent_op",
    "recurrent_weights",
]

RECURRENT_OPS: dict[Callable[..., Any], str] = {
    getattr(torch, name): name
    for name in (
        *("lstm", "gru", "rnn_tanh", "rnn_relu"),
        *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    )
}
"""The functions of torch that recurrent layers call -> type of op."""

RECURRENT_TYPES = (nn.RNNBase, nn.LSTMCell, nn.GRUCell, nn.RNNCell)

RECURRENT_WEIGHT = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?")
"""The names of their weights."""

COMPUTED = "_masked_flat_weights"
REPLACED = ("_flat_weights", "_update_flat_weights", "_init_flat_weights", "flatten_parameters")


def recurrent_op(module: nn.Module) -> str:
    """Return the type of op that a recurrent layer calls: ``lstm``, ``gru_cell`` and so on."""
    if isinstance(module, nn.RNNBase):
        return module.mode.lower()
    if isinstance(module, nn.RNNCell):
        return f"rnn_{module.nonlinearity}_cell"
    return "lstm_cell" if isinstance(module, nn.LSTMCell) else "gru_cell"


def recurrent_weights(
    arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> Iterator[tuple[Tensor, int]]:
    """Yield the weights in a call of a recurrent op, and the multiplications with each.

    Args:
        arguments: of the call; the first is the input: (..., features), or the data of a packed
            sequence.
        keywords: of the call.
    """
    data, *others = [*arguments, *keywords.values()]
    tokens = data.numel() // max(data.shape[-1], 1)
    # Of a sequence the weights are a list, of a cell they follow the hidden state, which is alone
    # or a pair. A hidden state that is alone in a call for sequences is no parameter.
    listed = [other for other in others if isinstance(other, list)]
    among = listed[0] if listed else others[1:]
    for weight in among:
        if isinstance(weight, Tensor) and weight.dim() > 1:
            yield weight, tokens * weight.numel()


def give_masked_weights(module: nn.Module) -> None:
    """Make a module hand its op what its parametrized weights are computed to, at every call.

    Nothing is changed but the class that torch has made for this parametrized module. A list of the
    tensors is computed at the beginning of a forward pass and dropped at its end, so that a copy of
    the module, or its files, never meets them. ``flatten_parameters`` does nothing until the masks
    are folded in: cuDNN lays the weights out anew in every call, and torch may warn of that once.

    Args:
        module: parametrized; one that is no ``nn.RNNBase`` needs nothing, and is left as it is.
    """
    cls: Any = type(module)
    if not isinstance(module, nn.RNNBase) or "_flat_weights" in vars(cls):
        return
    forward = cls.forward

    @wraps(forward)
    def forward_with_masks(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.__dict__[COMPUTED] = _computed(self)
        try:
            return forward(self, *args, **kwargs)
        finally:
            self.__dict__.pop(COMPUTED, None)

    cls.forward = forward_with_masks
    cls._flat_weights = property(_flat_weights, _nothing)
    for name in REPLACED[1:]:
        setattr(cls, name, _nothing)
    cls.__jit_unused_properties__ = [*cls.__jit_unused_properties__, "_flat_weights"]
    # What stood there would be copied along with the module.
    vars(module).update(_flat_weights=[], _flat_weight_refs=[])


def give_plain_weights(module: nn.Module) -> None:
    """Take back what ``give_masked_weights`` has done, once the masks are gone."""
    if not isinstance(module, nn.RNNBase):
        return
    cls: Any = type(module)
    if "_flat_weights" in vars(cls):  # somebody else's parametrization is still there
        for name in (*REPLACED, "forward", "__jit_unused_properties__"):
            delattr(cls, name)
    module._init_flat_weights()


def _flat_weights(module: Any) -> list[Tensor | None]:
    given: list[Tensor | None] | None = vars(module).get(COMPUTED)
    return _computed(module) if given is None else given


def _computed(module: Any) -> list[Tensor | None]:
    return [getattr(module, name, None) for name in module._flat_weights_names]


def _nothing(module: Any, *args: Any) -> None:
    """Do nothing: the list is computed when it is read."""
