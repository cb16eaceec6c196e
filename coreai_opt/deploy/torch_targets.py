"""Targets that need torch alone: plain weights, and sparse inference on the CPU."""

from pathlib import Path

import torch
from torch import Tensor, nn

from coreai_opt.deploy.artefact import Artefact
from coreai_opt.deploy.sparse_inference import LayerGain, load_sparse, save_sparse, to_sparse
from coreai_opt.pruning.model.copying import copy_of


class TorchTarget:
    """``weights.pt``: the state dict; zeros cost few bytes in an archive, and save no time."""

    name = "torch"
    extra = None

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        path = directory / "weights.pt"
        torch.save(model.state_dict(), path)
        return Artefact((path,), model)


class SparseCPUTarget:
    """``sparse.pt``: what ``to_sparse`` makes; ``load_sparse`` loads it."""

    name = "sparse_cpu"
    extra = None

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        path = directory / "sparse.pt"
        made = to_sparse(model, example)
        save_sparse(made, path)
        # What was written is what is measured.
        return Artefact((path,), load_sparse(copy_of(model), path), note=_note(made.layers))


def _note(layers: list[LayerGain]) -> str:
    converted = [layer for layer in layers if layer.converted]
    rest = [layer for layer in layers if not layer.converted]
    sentence = f"{len(converted)} of {len(layers)} layers are sparse"
    later = [layer for layer in rest if layer.gains_from is not None]
    if later:
        named = ", ".join(f"{one.name} from {100 * (one.gains_from or 0):g} %" for one in later[:3])
        sentence += f"; others would gain: {named}{', …' if len(later) > 3 else ''}"
    elif rest:
        sentence += "; the others would not gain here at any sparsity"
    return sentence
