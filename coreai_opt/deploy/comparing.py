"""Comparison of outputs: an artefact against the masked model, on real inputs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 256


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of an artefact are from those of the masked model.

    Attributes:
        largest_difference: over all outputs, absolute.
        agreement: share of inputs of which both predict the same class; None where the outputs are
            no ``(batch, classes)``.
        examples: number of inputs.
    """

    largest_difference: float
    agreement: float | None
    examples: int


def compare(
    run: Callable[[Tensor], Any], reference: Callable[[Tensor], Any], inputs: Tensor
) -> Agreement:
    """Compute outputs of both on all inputs, 256 at a time, and return how far they are apart."""
    largest, same, is_classes = 0.0, 0, True
    with torch.inference_mode():
        for chunk in torch.split(inputs, CHUNK):
            wanted, found = first_output(reference(chunk)), first_output(run(chunk))
            if wanted.shape != found.shape:
                shapes = f"{list(found.shape)} in the place of {list(wanted.shape)}"
                raise ValueError(f"its outputs have another shape, {shapes}")
            if wanted.numel():
                largest = max(largest, float((wanted.double() - found.double()).abs().max()))
            is_classes = is_classes and wanted.ndim == 2 and wanted.shape[1] > 1
            if is_classes:
                same += int((wanted.argmax(1) == found.argmax(1)).sum())
    return Agreement(largest, same / len(inputs) if is_classes else None, len(inputs))


def first_output(outputs: Any) -> Tensor:
    """Return the tensor of outputs, the first one of several.

    Raises:
        ValueError: there is none.
    """
    tensor = next(_tensors(outputs), None)
    if tensor is None:
        raise ValueError(f"the model returns a {type(outputs).__name__}; allowed: tensors")
    return tensor


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
