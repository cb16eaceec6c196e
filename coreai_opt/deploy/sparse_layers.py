"""Sparse layers: linear layers and 1 x 1 convolutions whose weight is a CSR matrix, on the CPU."""

import warnings
from typing import Any, Self

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # torch says once in a process that its support of CSR tensors is in beta state.
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    torch.eye(1).to_sparse_csr()


class SparseLinear(nn.Module):
    """A linear layer for inference that multiplies with the nonzero weights alone.

    The weight is kept in compressed rows: ``rows`` (int32, out_features + 1), ``columns`` (int32)
    and ``values``, one each for a nonzero weight.

    Args:
        out_features, in_features: the shape of the weight.
        nonzero: number of weights that are not 0.
        bias: whether there is a bias.
        dtype: of values and bias.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(
        self,
        out_features: int,
        in_features: int,
        nonzero: int,
        bias: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, in_features
        self._matrix: Tensor | None = None
        self._matrix_of: Tensor | None = None
        self.register_buffer("rows", torch.zeros(out_features + 1, dtype=torch.int32))
        self.register_buffer("columns", torch.zeros(nonzero, dtype=torch.int32))
        self.register_buffer("values", torch.zeros(nonzero, dtype=dtype))
        self.register_buffer("bias", torch.zeros(out_features, dtype=dtype) if bias else None)

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        """Return the sparse form of a layer: ``Linear``, or ``Conv2d`` where it is 1 x 1."""
        weight: Any = layer.weight
        bias: Any = layer.bias
        matrix: Tensor = weight.detach().flatten(1)
        compressed = matrix.to_sparse_csr()
        nonzero = compressed.values().numel()
        made = cls(len(matrix), matrix.shape[1], nonzero, bias is not None, weight.dtype)
        made.rows.copy_(compressed.crow_indices())
        made.columns.copy_(compressed.col_indices())
        made.values.copy_(compressed.values())
        if made.bias is not None:
            made.bias.copy_(bias.detach())
        return made

    def form(self) -> dict[str, Any]:
        """Return what ``of_form`` makes such a layer from: numbers and names alone."""
        return {
            "kind": type(self).__name__,
            "shape": [self.out_features, self.in_features],
            "nonzero": self.values.numel(),
            "bias": self.bias is not None,
        }

    def matrix(self) -> Tensor:
        """Return the weight, ``(out_features, in_features)`` in CSR form; it shares the values."""
        if self._matrix is None or self._matrix_of is not self.values:
            # Kept for as long as the buffers are the same: making it takes 3 microseconds.
            shape = (self.out_features, self.in_features)
            self._matrix_of = self.values
            # Its indices were checked when it was made: checks at each call would cost a gain.
            self._matrix = torch.sparse_csr_tensor(
                self.rows, self.columns, self.values, shape, check_invariants=False
            )
        return self._matrix

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_matrix": None, "_matrix_of": None}

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(..., out_features)`` for inputs ``(..., in_features)``."""
        if inputs.numel() == self.in_features:
            # The product with a vector takes half the time of that with one column.
            vector = torch.mv(self.matrix(), inputs.reshape(-1))
            if self.bias is not None:
                vector += self.bias
            return vector.view(*inputs.shape[:-1], self.out_features)
        outputs = self._product(inputs.reshape(-1, self.in_features).t())
        return outputs.t().reshape(*inputs.shape[:-1], self.out_features)

    def _product(self, columns: Tensor) -> Tensor:
        """Return weight times columns, ``(in_features, n)``, plus the bias."""
        if self.bias is None:
            return self.matrix() @ columns
        return torch.addmm(self.bias[:, None], self.matrix(), columns)

    def extra_repr(self) -> str:
        sparsity = 1 - self.values.numel() / (self.out_features * self.in_features)
        return f"{self.in_features}, {self.out_features}, sparsity={sparsity:.4f}"


class SparsePointwise(SparseLinear):
    """A 1 x 1 convolution, likewise."""

    stride: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        made = super().of(layer)
        stride: Any = layer.stride
        made.stride = stride
        return made

    def form(self) -> dict[str, Any]:
        return {**super().form(), "stride": list(self.stride)}

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(batch, out, height, width)`` for inputs ``(batch, in, height, width)``."""
        taken = inputs[..., :: self.stride[0], :: self.stride[1]]
        batch, channels, height, width = taken.shape
        columns = taken.transpose(0, 1).reshape(channels, -1)
        outputs = self._product(columns).reshape(self.out_features, batch, height, width)
        return outputs.transpose(0, 1)


def of_form(form: dict[str, Any]) -> SparseLinear:
    """Return an empty layer of a form, which a state dict fills.

    Raises:
        ValueError: it is the form of no layer here.
    """
    kinds = {kind.__name__: kind for kind in (SparseLinear, SparsePointwise)}
    if form.get("kind") not in kinds:
        raise ValueError(f"{form.get('kind')!r} is no sparse layer; allowed: {', '.join(kinds)}")
    out_features, in_features = form["shape"]
    layer = kinds[form["kind"]](out_features, in_features, form["nonzero"], form["bias"])
    if isinstance(layer, SparsePointwise):
        layer.stride = tuple(form["stride"])
    return layer


def sparse_kind(module: nn.Module) -> type[SparseLinear] | None:
    """Return the sparse layer that can stand in for a module, None where there is none.

    A class of its own whose ``forward`` is another's is left alone, as are weights that something
    computes (parametrizations).
    """
    if "weight" not in dict(module.named_parameters(recurse=False)):
        return None
    if type(module).forward is nn.Linear.forward:
        return SparseLinear
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:
        is_plain = module.groups == 1 and module.padding in ((0, 0), "valid")
        return SparsePointwise if is_plain and module.kernel_size == (1, 1) else None
    return None
