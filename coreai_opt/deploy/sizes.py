"""Sizes: bytes of artefacts as written and compressed, and the dense twin of a model."""

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from coreai_opt.pruning.model.copying import copy_of


def written_bytes(files: Sequence[Path]) -> int:
    """Return the bytes of files, and of all files in folders."""
    return sum(path.stat().st_size for path in _all_files(files))


def compressed_bytes(files: Sequence[Path]) -> int:
    """Return the bytes of one zip archive of them (DEFLATE): so they are downloaded and shipped."""
    with tempfile.TemporaryFile() as archive:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for number, path in enumerate(_all_files(files)):
                packed.write(path, f"{number}/{path.name}")
        return archive.tell()


def share_of_zeros(model: nn.Module) -> float:
    """Return the share of zeros among the weights of two or more dimensions, in [0, 1]."""
    weights = [one for one in model.parameters() if one.ndim > 1]
    total = sum(weight.numel() for weight in weights)
    nonzero = sum(int(torch.count_nonzero(weight)) for weight in weights)
    return 1 - nonzero / total if total else 0.0


def dense_twin(model: nn.Module) -> nn.Module:
    """Return a copy whose zeros have random values, as large as the other values of their tensor.

    It is what the model would cost if it had not been pruned, in bytes and in time.
    """
    twin = copy_of(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.is_floating_point():
                zeros = parameter == 0
                kept = parameter[~zeros]
                scale = float(kept.abs().mean()) if kept.numel() else 1.0
                noise = torch.randn(parameter.shape, generator=generator) * scale
                parameter[zeros] = noise.to(parameter.dtype)[zeros]
    return twin


def _all_files(files: Sequence[Path]) -> Iterator[Path]:
    for path in files:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        else:
            yield path
