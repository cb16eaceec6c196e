"""Model summary: elements, zeros, multiplications and bytes, by layer and in total."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from coreai_opt.pruning._text import as_text
from coreai_opt.pruning.model.operations import OpCall, trace_forward, undisturbed
from coreai_opt.pruning.model.stats import count_nonzeros
from coreai_opt.pruning.model.targets import Holder, WeightTensor, weight_tensors

if TYPE_CHECKING:
    import pandas as pd

Flops = tuple[int, int] | None  # dense and effective; None = not measured


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much there is of some weights, dense and pruned.

    Attributes:
        elements: number of weights.
        nonzero: those that are not zero, counted.
        flops_dense: floating-point operations of one forward pass, 2 for each multiplication with a
            weight (it and the addition); None = not measured.
        flops_effective: those that are left when multiplications with zeros are skipped.
        bytes_dense: size of the weights as they are.
        bytes_compressed: size as ``compressed_bytes`` has it.
    """

    elements: int
    nonzero: int
    flops_dense: int | None
    flops_effective: int | None
    bytes_dense: int
    bytes_compressed: int

    @property
    def sparsity(self) -> float:
        """Share of zeros, counted, in [0, 1]; 0 where there is no weight."""
        return 1 - self.nonzero / self.elements if self.elements else 0.0

    @property
    def compression(self) -> float:
        """How many times smaller it gets: dense through compressed bytes, >= 1."""
        return self.bytes_dense / self.bytes_compressed if self.bytes_compressed else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in plain JSON values."""
        numbers = {field.name: getattr(self, field.name) for field in fields(Amount)}
        return {**numbers, "sparsity": self.sparsity, "compression": self.compression}


@dataclass(frozen=True, kw_only=True)
class LayerAmount(Amount):
    """One weight: its name in the unpruned model, its shape, and how much it is."""

    name: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return name, shape and all numbers in plain JSON values."""
        return {"name": self.name, "shape": list(self.shape), **super().to_dict()}


@dataclass(frozen=True)
class ModelSummary:
    """The weights of a model; ``str()`` is a table.

    Attributes:
        layers: the weights that can be pruned, and all that are, in the order of the model. A
            tensor that several modules share is there once, with the operations of all of them.
        other: all other parameters together: biases, norms, embeddings, ... They count as dense,
            whatever zeros they have. Its operations are those with weights that are no parameters
            but are computed on the way (transposed, scaled).
    """

    layers: tuple[LayerAmount, ...]
    other: Amount

    @property
    def weights(self) -> Amount:
        """The layers together."""
        measured = self.other.flops_dense is not None
        return reduce(_added, self.layers, _nothing((0, 0) if measured else None))

    @property
    def total(self) -> Amount:
        """All parameters of the model."""
        return _added(self.weights, self.other)

    def to_dict(self) -> dict[str, Any]:
        """Return ``layers``, ``weights``, ``other`` and ``total`` in plain JSON values."""
        return {
            "layers": [layer.to_dict() for layer in self.layers],
            "weights": self.weights.to_dict(),
            "other": self.other.to_dict(),
            "total": self.total.to_dict(),
        }

    def to_frame(self) -> "pd.DataFrame":
        """Return the layers as a pandas DataFrame, a row each.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_frame() needs the package pandas: pip install 'hydra-coreai-opt[pandas]'"
            ) from error
        columns = ["name", "shape", *_nothing(None).to_dict()]
        return pd.DataFrame([layer.to_dict() for layer in self.layers], columns=columns)

    def __str__(self) -> str:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("weight")
        for column in ("shape", "elements", "non-zeros", "sparsity"):
            table.add_column(column, justify="right")
        for column in ("FLOPs dense", "effective", "bytes dense", "compressed"):
            table.add_column(column, justify="right")
        for layer in self.layers:
            # As Text: a name may hold what rich takes for markup.
            table.add_row(Text(layer.name), "x".join(map(str, layer.shape)), *_cells(layer))
        table.add_section()
        table.add_row("all weights above", "", *_cells(self.weights))
        table.add_row("other parameters, as dense", "", *_cells(self.other))
        table.add_row("total", "", *_cells(self.total))
        return as_text(table)


def summary(model: nn.Module, example_inputs: Any = None) -> ModelSummary:
    """Sum up the weights of a model that is plain, prepared or finalized; it stays as it is.

    Without inputs the layers are the linear, convolution, recurrent and attention layers of the
    model, and all weights that carry a mask. With inputs the model is run once, in evaluation mode
    and without gradients: its operations are counted, and the parameters that it hands to
    ``torch.nn.functional`` itself are layers as well.

    The operations are 2 for each multiplication with a weight in a linear, convolution, recurrent
    or attention layer, and with a parameter in a product (``x @ w``, ``einsum``, ``bilinear``);
    everything else that a model computes (activations, norms, the products within attention) is
    left out. The effective ones are ``dense * nonzero / elements``: what is
    left for a program that skips every zero, which dense kernels do not.

    Args:
        model: buffers do not count, and neither do lazy parameters that no batch has initialised; a
            pass with inputs initialises them.
        example_inputs: what the model is called with: a tensor, a tuple or list of positional
            arguments, or a dict of keyword arguments; None = operations are not counted.

    Raises:
        ValueError: the model is on the meta device, where there is nothing to count.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
        >>> model[0].weight.data[0] = 0
        >>> amount = summary(model, torch.ones(3, 4)).total
        >>> amount.elements, amount.nonzero, amount.flops_dense, amount.flops_effective
        (10, 6, 48, 24)
        >>> amount.bytes_dense, amount.bytes_compressed
        (40, 25)
    """
    with undisturbed(model), torch.no_grad():
        calls = None if example_inputs is None else trace_forward(model, example_inputs)
        return _summed_up(model, calls)


def compressed_bytes(elements: int, nonzero: int, itemsize: int) -> int:
    """Return the size of a weight that is kept as its non-zeros and a bit for each element.

    The size is ``min(elements * itemsize, nonzero * itemsize + ceil(elements / 8))``: a weight with
    too few zeros is kept dense.

    Args:
        elements: elements of the weight, >= 0.
        nonzero: those that are not zero.
        itemsize: bytes of one element.

    Example:
        >>> [compressed_bytes(16, nonzero, itemsize=4) for nonzero in (0, 8, 15, 16)]
        [2, 34, 62, 64]
    """
    return min(elements * itemsize, nonzero * itemsize + ceil(elements / 8))


class _Operations:
    """Multiplications of a forward pass, by the tensor that they are made with."""

    def __init__(self, calls: Sequence[OpCall] | None) -> None:
        self.tensors: dict[int, Tensor] = {}
        self._measured = calls is not None
        self._made = Counter[int]()
        for call in calls or ():
            for _, tensor, count in call.weights:
                self.tensors[id(tensor)] = tensor
                self._made[id(tensor)] += count

    def flops(self, tensors: Sequence[Tensor], nonzero: int) -> Flops:
        """Return the dense and the effective FLOPs of tensors that are one and the same weight."""
        if not self._measured:
            return None
        elements = tensors[0].numel() if tensors else 0
        dense = 2 * sum(self._made[key] for key in {id(tensor) for tensor in tensors})
        return dense, dense * nonzero // elements if elements else 0


def _summed_up(model: nn.Module, calls: Sequence[OpCall] | None) -> ModelSummary:
    operations = _Operations(calls)
    weights = weight_tensors(model, operations.tensors)
    # A parametrized weight that several modules share is a tensor of its own in each.
    values = [[holder.value() for holder in weight.holders] for weight in weights]
    known = {id(value) for shared in values for value in shared}
    computed = [[value] for key, value in operations.tensors.items() if key not in known]
    tensors = [*values, *computed]
    amounts = [
        _amount(same[0], nonzero, operations.flops(same, nonzero))
        for same, nonzero in zip(tensors, _nonzeros([same[0] for same in tensors]), strict=True)
    ]
    layers = tuple(
        LayerAmount(name=weight.name, shape=tuple(same[0].shape), **vars(amount))
        for weight, same, amount in zip(weights, values, amounts, strict=False)
    )
    none = operations.flops([], 0)
    dense = [_amount(value, value.numel(), none) for value in _others(model, weights)]
    # No parameters: only the operations count.
    passing = [
        replace(_nothing(none), flops_dense=a.flops_dense, flops_effective=a.flops_effective)
        for a in amounts[len(weights) :]
    ]
    return ModelSummary(layers, reduce(_added, [*dense, *passing], _nothing(none)))


def _others(model: nn.Module, weights: Sequence[WeightTensor]) -> list[nn.Parameter]:
    holders = [holder for weight in weights for holder in weight.holders]
    layers = {id(parameter) for holder in holders for parameter in _behind(holder)}
    return [p for p in model.parameters() if id(p) not in layers and not is_lazy(p)]


def _behind(holder: Holder) -> Iterable[nn.Parameter]:
    """Return the parameters that a weight is computed from: of a plain one it is itself."""
    if parametrize.is_parametrized(holder.module, holder.parameter):
        parametrizations: Any = holder.module.parametrizations
        chain: nn.Module = parametrizations[holder.parameter]
        return chain.parameters()
    return [holder.value()]


def _nonzeros(tensors: Sequence[Tensor]) -> list[int]:
    if any(tensor.is_meta for tensor in tensors):
        raise ValueError(
            "a model on the meta device has no values to count; load its weights first"
        )
    return count_nonzeros(tensors)


def _amount(tensor: Tensor, nonzero: int, flops: Flops) -> Amount:
    elements, itemsize = tensor.numel(), tensor.element_size()
    dense, effective = flops or (None, None)
    return Amount(
        elements=elements,
        nonzero=nonzero,
        flops_dense=dense,
        flops_effective=effective,
        bytes_dense=elements * itemsize,
        bytes_compressed=compressed_bytes(elements, nonzero, itemsize),
    )


def _nothing(flops: Flops) -> Amount:
    return _amount(torch.empty(0), 0, flops)


def _added(one: Amount, other: Amount) -> Amount:
    def both(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a + b

    return Amount(
        elements=one.elements + other.elements,
        nonzero=one.nonzero + other.nonzero,
        flops_dense=both(one.flops_dense, other.flops_dense),
        flops_effective=both(one.flops_effective, other.flops_effective),
        bytes_dense=one.bytes_dense + other.bytes_dense,
        bytes_compressed=one.bytes_compressed + other.bytes_compressed,
    )


def _cells(amount: Amount) -> list[str]:
    flops = (amount.flops_dense, amount.flops_effective)
    return [
        f"{amount.elements:,}",
        f"{amount.nonzero:,}",
        f"{amount.sparsity:.2%}",
        *("" if number is None else f"{number:,}" for number in flops),
        f"{amount.bytes_dense:,}",
        f"{amount.bytes_compressed:,}",
    ]
