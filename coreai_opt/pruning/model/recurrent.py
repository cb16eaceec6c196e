"""Recurrent layers: their weights, and the ops that use them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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

    The first argument is the input: (..., features), or the data of a packed sequence.
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
