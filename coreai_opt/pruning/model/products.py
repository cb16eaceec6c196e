"""Multiplication count of ops, ``x @ w``, ``einsum`` and ``bilinear``."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ATTENTION = "multi_head_attention_forward"

PAIRS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm)
WITH_SUM = (torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm)
PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    [*PAIRS, Tensor.__rmatmul__, *WITH_SUM, torch.einsum, torch.bilinear, F.bilinear]
)
"""The functions of torch whose products are counted."""


def op_products(op_type: str, argument: str, given: Mapping[str, Any], output: Any) -> int:
    """Return how many multiplications with the elements of a weight a call makes."""
    weight: Tensor = given[argument]
    if op_type == ATTENTION:
        tokens = {name: _vectors(given[name]) for name in ("query", "key", "value")}
        if argument == "in_proj_weight":
            return weight.numel() // 3 * sum(tokens.values())
        into = {"k_proj_weight": "key", "v_proj_weight": "value"}
        return weight.numel() * tokens[into.get(argument, "query")]
    if argument == "mat2":
        return int(output.numel()) * weight.shape[0]
    # A weight of a convolution meets every position of the output, of a transposed one every
    # position of the input; their channels are the first axis of the weight.
    met = given["input"] if op_type.startswith("conv_transpose") else output
    return weight.numel() * (int(met.numel()) // max(weight.shape[0], 1))


def _vectors(tensor: Tensor) -> int:
    return tensor.numel() // max(tensor.shape[-1], 1)


def parameter_products(
    function: Callable[..., Any], arguments: Sequence[Any], output: Any, parameters: Collection[int]
) -> Iterator[tuple[Tensor, int]]:
    """Yield the parameters in a call of one of ``PRODUCTS``, and the multiplications with each.

    ``parameters`` are the ids of the tensors that count; a view of one counts for it.
    """
    if not isinstance(output, Tensor):
        return
    operands = list(arguments)
    if function is torch.einsum:
        operands = list(arguments[1:])
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = list(operands[0])
        count = _einsum_count(arguments[0], operands, output)
    elif function in (torch.bilinear, F.bilinear):
        count = output.numel() * arguments[0].shape[-1] * arguments[1].shape[-1]
        operands = list(arguments[2:3])
    else:
        operands = operands[1:3] if function in WITH_SUM else operands[:2]
        first = operands[1 if function is Tensor.__rmatmul__ else 0]
        count = output.numel() * (first.shape[-1] if first.dim() else 1)
    for operand in operands:
        for tensor in (operand, getattr(operand, "_base", None)):
            if isinstance(tensor, Tensor) and id(tensor) in parameters and tensor.dim() > 1:
                yield tensor, count


def _einsum_count(equation: Any, operands: Sequence[Tensor], output: Tensor) -> int:
    """Return the multiplications of an einsum: one for each combination of its indices.

    Example:
        >>> _einsum_count("bi,ij->bj", [torch.ones(2, 3), torch.ones(3, 4)], torch.ones(2, 4))
        24
    """
    if not isinstance(equation, str):
        return 0  # lists of indices instead of letters
    terms, arrow, result = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms.split(","), operands, strict=True):
        before, _, after = term.partition("...")
        sizes.update(zip(before, operand.shape, strict=False))
        sizes.update(zip(reversed(after), reversed(operand.shape), strict=False))
    if not arrow:
        counts = Counter(terms)
        result = "".join(letter for letter in sizes if counts[letter] == 1)
    summed = 1
    for letter, size in sizes.items():
        summed *= 1 if letter in result else size
    return output.numel() * summed
