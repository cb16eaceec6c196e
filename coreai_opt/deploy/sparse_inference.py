"""Sparse inference on the CPU: layers become CSR matrices where that is faster on this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coreai_opt.deploy.sparse_layers import SparseLinear, of_form, sparse_kind
from coreai_opt.deploy.timing import latencies
from coreai_opt.pruning.model.copying import copy_of

__all__ = ["LayerGain", "SparseModel", "load_sparse", "save_sparse", "to_sparse"]

FORMAT = "coreai_opt.deploy.to_sparse"
# A gain below this is noise of the measurement.
MARGIN = 1.05
# Where a gain may begin, in order.
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class LayerGain:
    """What the sparse form of a layer gains on this machine.

    Attributes:
        name: of the module; of equal shape and sparsity one layer is measured for all.
        shape: outputs and inputs of its matrix.
        sparsity: share of its weights that are 0, in [0, 1].
        speedup: batch size -> dense time over sparse time.
        converted: whether it is sparse now: faster at all batch sizes, and so is the whole model.
        gains_from: the smallest sparsity at which it gains at all batch sizes, its own or one of
            0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99; None = at none of them.
    """

    name: str
    shape: tuple[int, int]
    sparsity: float
    speedup: Mapping[int, float]
    converted: bool
    gains_from: float | None


class SparseModel(NamedTuple):
    """A model for inference, and what each of its layers gains."""

    model: nn.Module
    layers: list[LayerGain]


class _Candidate(NamedTuple):
    name: str
    module: nn.Module
    inputs: dict[int, Tensor]  # by batch size


def to_sparse(
    model: nn.Module, example: Tensor, batch_sizes: Sequence[int] = (1, 32), seconds: float = 0.05
) -> SparseModel:
    """Return a copy of a model whose sparse layers multiply with their nonzero weights alone.

    Linear layers and 1 x 1 convolutions are measured, each in its dense and its sparse form, with
    the inputs that they get at each batch size. Those that gain at all of them are converted. The
    whole model is measured then, and where it is not faster at a batch size it stays dense.

    Compressed rows (CSR) are the one sparse form: blocks (BSR) were slower at all shapes that were
    measured.

    Args:
        model: its zeros are in its weights, without masks beside them; on the CPU. It stays as it
            is.
        example: a batch of inputs, the batch being the first dimension.
        batch_sizes: what is measured, each >= 1; the example is repeated or cut.
        seconds: time for one measurement, > 0. torch's number of threads is what it is.

    Returns:
        The copy, in evaluation mode, and what each layer gains, in the order of the model. Its
        outputs are those of the model up to the order of summation.

    Raises:
        ValueError: the model is not on the CPU.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise ValueError(
            "to_sparse measures and converts on the CPU; allowed: model.cpu(), or on a GPU "
            "to_semi_structured, for 2:4"
        )
    made = copy_of(model).eval()
    batches = {size: batch_of(example, size) for size in batch_sizes}
    with torch.inference_mode():
        candidates = _candidates(made, batches)
        measured: dict[Any, tuple[dict[int, float], float | None]] = {}
        gains = [_gain(candidate, measured, seconds) for candidate in candidates]
        chosen = [one for one, gain in zip(candidates, gains, strict=True) if gain.converted]
        if chosen and not _convert(made, chosen, model, batches, seconds):
            gains = [replace(gain, converted=False) for gain in gains]
            made = copy_of(model).eval()
    return SparseModel(made, gains)


def batch_of(example: Tensor, size: int) -> Tensor:
    """Return a batch of so many inputs: those of an example, repeated or cut."""
    copies = -(-size // len(example))
    return example.repeat(copies, *[1] * (example.ndim - 1))[:size]


def save_sparse(sparse: SparseModel | nn.Module, path: str | Path) -> None:
    """Write a converted model: tensors, shapes and names, which ``weights_only=True`` loads."""
    model = sparse.model if isinstance(sparse, SparseModel) else sparse
    named = model.named_modules()
    forms = {name: module.form() for name, module in named if isinstance(module, SparseLinear)}
    content = {"format": FORMAT, "layers": forms, "state_dict": model.state_dict()}
    beside = Path(path).with_name(f".{Path(path).name}")
    torch.save(content, beside)
    beside.replace(path)


def load_sparse(network: nn.Module, path: str | Path) -> nn.Module:
    """Load what ``save_sparse`` has written into a fresh network, in place.

    Args:
        network: of the architecture that was converted.
        path: the file.

    Returns:
        The network, in evaluation mode.

    Raises:
        ValueError: the file is another one, or of another network.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is not what save_sparse writes")
    shapes = {name: _matrix_shape(one) for name, one in network.named_modules()}
    for name, form in content["layers"].items():
        if shapes.get(name) != form["shape"]:
            other = f"{name} is {form['shape']} there, {shapes.get(name)} here"
            raise ValueError(f"{str(path)!r} is of another network: {other}")
        replace_module(network, name, of_form(form).to(_dtype_of(content["state_dict"], name)))
    try:
        network.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is of another network: {words}") from error
    _follow_no_fast_path(network)
    return network.eval()


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another one."""
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, module)


def table(layers: Sequence[LayerGain]) -> list[dict[str, Any]]:
    """Return what the layers gain as plain values, for a record."""
    return [
        {**asdict(layer), "speedup": {str(size): gain for size, gain in layer.speedup.items()}}
        for layer in layers
    ]


def _matrix_shape(module: nn.Module) -> list[int] | None:
    weight = getattr(module, "weight", None)
    return list(weight.shape[:2]) if isinstance(weight, Tensor) else None


def _dtype_of(state: Mapping[str, Tensor], name: str) -> torch.dtype:
    return state[f"{name}.values"].dtype


def _candidates(model: nn.Module, batches: Mapping[int, Tensor]) -> list[_Candidate]:
    """Return the layers that have a sparse form and are called, with what they are called with."""
    layers = {name: one for name, one in model.named_modules() if sparse_kind(one) is not None}
    seen = {size: _inputs_of(model, layers, batch) for size, batch in batches.items()}
    return [
        _Candidate(name, layer, {size: inputs[name] for size, inputs in seen.items()})
        for name, layer in layers.items()
        if all(name in inputs for inputs in seen.values())
    ]


def _inputs_of(model: nn.Module, layers: Mapping[str, nn.Module], batch: Tensor) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, arguments: seen.update({name: arguments[0]} if arguments else {})

    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _gain(candidate: _Candidate, measured: dict[Any, Any], seconds: float) -> LayerGain:
    weight: Any = candidate.module.weight
    sparsity = 1 - int(torch.count_nonzero(weight)) / weight.numel()
    shapes = tuple(tuple(inputs.shape) for inputs in candidate.inputs.values())
    key = (type(candidate.module), tuple(weight.shape), shapes, round(sparsity, 2))
    if key not in measured:
        speedup = _speedup(candidate, seconds)
        measured[key] = speedup, _gains_from(candidate, sparsity, _is_gain(speedup), seconds)
    speedup, gains_from = measured[key]
    shape = (weight.shape[0], weight.shape[1])
    gain = _is_gain(speedup)
    return LayerGain(candidate.name, shape, sparsity, speedup, gain, gains_from)


def _is_gain(speedup: Mapping[int, float]) -> bool:
    return all(value >= MARGIN for value in speedup.values())


def _speedup(candidate: _Candidate, seconds: float) -> dict[int, float]:
    kind = sparse_kind(candidate.module)
    assert kind is not None
    dense, sparse = candidate.module, kind.of(candidate.module)
    gains = {}
    for size, inputs in candidate.inputs.items():
        slow, fast = latencies([partial(dense, inputs), partial(sparse, inputs)], seconds)
        gains[size] = slow.p50_ms / fast.p50_ms
    return gains


def _gains_from(
    candidate: _Candidate, sparsity: float, gains: bool, seconds: float
) -> float | None:
    """Return from which sparsity on the layer gains: below one that does, above one that does not.

    Zeros are put at random places for it.
    """
    weight: Any = candidate.module.weight
    kept = weight.clone()
    order = torch.rand(weight.numel(), generator=torch.Generator().manual_seed(0)).argsort()

    def gains_at(one: float) -> bool:
        weight.fill_(1.0).view(-1)[order[: int(one * weight.numel())]] = 0.0
        return _is_gain(_speedup(candidate, seconds))

    try:
        if not gains:
            return next((one for one in SPARSITIES if one > sparsity and gains_at(one)), None)
        lower = [one for one in reversed(SPARSITIES) if one < sparsity]
        return min([round(sparsity, 4), *takewhile(gains_at, lower)])
    finally:
        weight.copy_(kept)


def _convert(
    made: nn.Module,
    chosen: Sequence[_Candidate],
    model: nn.Module,
    batches: Mapping[int, Tensor],
    seconds: float,
) -> bool:
    """Convert layers in place, and return whether the model is faster at all batch sizes."""
    for candidate in chosen:
        kind = sparse_kind(candidate.module)
        assert kind is not None
        replace_module(made, candidate.name, kind.of(candidate.module))
    _follow_no_fast_path(made)
    return _is_faster(made, copy_of(model).eval(), batches, seconds)


def _is_faster(
    sparse: nn.Module, dense: nn.Module, batches: Mapping[int, Tensor], seconds: float
) -> bool:
    for batch in batches.values():
        slow, fast = latencies([partial(dense, batch), partial(sparse, batch)], 4 * seconds)
        if fast.p50_ms > slow.p50_ms:
            return False
    return True


def _follow_no_fast_path(model: nn.Module) -> None:
    """Have encoder layers of torch call their linear layers, some of which are sparse now.

    Their fast path computes with dense weights; without a known activation it is not taken.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and any(
            isinstance(child, SparseLinear) for child in module.children()
        ):
            module.activation_relu_or_gelu = 0
