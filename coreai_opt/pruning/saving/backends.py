"""Forms of a sparse model that the converters of Core ML and Core AI read.

Sources: coremltools 9 reads what was compressed from buffers (coremltools guide, "Converting
Compressed Source Models"); coreai-torch 0.4 stores what its operation ``coreai::sparse_to_dense``
makes as a bit mask and the nonzero values.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from coreai_opt.common import CoreMLExportError, ExportBackend
from coreai_opt.pruning._text import listed
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.model.targets import pruned_tensors

__all__ = ["SparseWeight", "to_backend"]

# From how many zeros on a bit mask and the rest are fewer bytes than 16 bits for each weight.
WORTH = 1 / 16
# Core ML's number for pruning, and the version of its metadata.
PRUNED, METADATA_VERSION = 1, 1
DTYPES = {
    ExportBackend.CoreML: (torch.float16, torch.float32),
    ExportBackend.CoreAI: (torch.float16, torch.bfloat16, torch.float32),
}


class SparseWeight(nn.Module):
    """Parametrization that keeps a weight as its nonzero values; Core AI's converter stores them.

    ``original`` is one-dimensional then: the values at ``mask``, in the order of the weight.

    Args:
        mask: bool, True = nonzero, of the weight's shape.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, nonzero: Tensor) -> Tensor:
        weight: Tensor = _sparse_to_dense()(nonzero, self.mask)
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight[self.mask]


class _Weight(NamedTuple):
    module: nn.Module
    module_name: str
    parameter: str
    value: nn.Parameter

    @property
    def name(self) -> str:
        return f"{self.module_name}.{self.parameter}".removeprefix(".")


def to_backend(model: nn.Module, backend: ExportBackend | str) -> nn.Module:
    """Give a plain model with zeros in its weights the form that a converter reads, in place.

    Weights of two or more dimensions of which at least 1/16 are zeros count as sparse.

    - ``"torch"``: it stays as it is.
    - ``"coreml"``: buffers say what was pruned, ``_COREML_/<parameter>/compression_type`` on its
      module and ``_COREML_/metadata_version`` on the model. ``coremltools.convert`` writes sparse
      weights then.
    - ``"coreai"``: sparse weights become ``SparseWeight`` parametrizations, for inference.

    Args:
        model: without masks: finalized, or trained by ``ScheduledPruning``.
        backend: a backend or its string.

    Returns:
        The same model.

    Raises:
        PruningError: the model carries masks.
        CoreMLExportError: Core ML has no such numbers as those of a sparse weight.
        NotImplementedError: Core AI has none, or ``coreai-torch`` is not installed.
    """
    backend = ExportBackend(backend)
    if backend is ExportBackend.Torch:
        return model
    if any(not tensor.is_beside for tensor in pruned_tensors(model)):
        raise PruningError("the model carries masks; allowed: a plain model (pruner.finalize())")
    sparse_weights = list(_sparse_weights(model))
    check_backend({one.name: one.value.dtype for one in sparse_weights}, backend)
    if backend is ExportBackend.CoreML:
        for weight in sparse_weights:
            buffer = f"_COREML_/{weight.parameter}/compression_type"
            weight.module.register_buffer(buffer, torch.tensor([PRUNED]))
        model.register_buffer("_COREML_/metadata_version", torch.tensor(METADATA_VERSION))
    elif backend is ExportBackend.CoreAI:
        for weight in sparse_weights:
            sparse = SparseWeight(weight.value.detach() != 0)
            # Unsafe: what is kept has another shape than the weight.
            parametrize.register_parametrization(
                weight.module, weight.parameter, sparse, unsafe=True
            )
    return model


def check_backend(dtypes: Mapping[str, torch.dtype], backend: ExportBackend) -> None:
    """Raise what ``to_backend`` raises for sparse weights of these types."""
    if backend is ExportBackend.Torch:
        return
    if backend is ExportBackend.CoreAI:
        _sparse_to_dense()
    others = {name: dtype for name, dtype in dtypes.items() if dtype not in DTYPES[backend]}
    if others:
        named = listed([f"{name} ({_short(dtype)})" for name, dtype in others.items()], str)
        allowed = ", ".join(map(_short, DTYPES[backend]))
        text = f"{backend.value!r} has no numbers of the type of {named}; allowed: {allowed}"
        raise (CoreMLExportError if backend is ExportBackend.CoreML else NotImplementedError)(text)


def _sparse_weights(model: nn.Module) -> Iterator[_Weight]:
    for module_name, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue  # what a weight is computed from is somebody else's
        for parameter, value in module.named_parameters(recurse=False):
            zeros = value.numel() - int(torch.count_nonzero(value))
            if value.ndim > 1 and zeros and zeros >= WORTH * value.numel():
                yield _Weight(module, module_name, parameter, value)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sparse_to_dense() -> Callable[..., Any]:
    try:
        from coreai_opt.pruning.saving._coreai_internals import sparse_to_dense
    except ModuleNotFoundError as error:
        raise NotImplementedError(
            "exporting to 'coreai' needs coreai-torch, which is not installed: "
            "pip install 'hydra-coreai-opt[coreai]'"
        ) from error
    return sparse_to_dense
