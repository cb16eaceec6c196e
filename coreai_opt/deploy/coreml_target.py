"""Target Core ML: ``model.mlpackage`` with sparse weights; Apple's frameworks compute with it."""

import contextlib
import io
import logging
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coreai_opt.common import ExportBackend
from coreai_opt.deploy.artefact import Artefact
from coreai_opt.deploy.exporting import converting, exported
from coreai_opt.pruning.model.copying import copy_of
from coreai_opt.pruning.saving.backends import to_backend

# Elsewhere than on macOS it says at each import what it cannot load; that is said once, below.
logging.getLogger("coremltools").setLevel(logging.CRITICAL)

import coremltools  # noqa: E402


class CoreMLTarget:
    """``model.mlpackage`` for iOS 16, macOS 13 and later, in 16 bits, as coremltools has it."""

    name = "coreml"
    extra = "coreml"

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        marked = to_backend(copy_of(model), ExportBackend.CoreML)
        program = exported(self.name, marked, example)
        path = directory / "model.mlpackage"
        # Its progress bars go to the standard error.
        silent = contextlib.redirect_stderr(io.StringIO())
        with converting(self.name, "coremltools cannot convert the model"), silent:
            made = coremltools.convert(
                program.run_decompositions({}),
                minimum_deployment_target=coremltools.target.iOS16,
                skip_model_load=True,
            )
        made.save(str(path))
        if platform.system() != "Darwin":
            return Artefact((path,), None, "Core ML predicts on macOS only")
        return Artefact((path,), CoreMLModel(path))


class CoreMLModel:
    """A model in Core ML.

    Args:
        path: of the package.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._model = path, coremltools.models.MLModel(str(path))
        self._input = self._model.get_spec().description.input[0].name

    def __call__(self, batch: Tensor) -> Tensor:
        outputs = self._model.predict({self._input: batch.numpy()})
        return torch.from_numpy(next(iter(outputs.values())))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)
