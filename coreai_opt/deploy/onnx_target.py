"""Target ONNX: ``model.onnx``, computed with by onnxruntime where that is installed."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx  # noqa: F401  # named in the error where the extra is missing
import onnxscript  # noqa: F401
import torch
from torch import Tensor, nn

from coreai_opt.deploy.artefact import Artefact
from coreai_opt.deploy.exporting import converting, exported

# It warns of each operation of torchvision where that is not installed.
logging.getLogger("torch.onnx").setLevel(logging.ERROR)

MISSING = "onnxruntime is not installed: pip install 'hydra-coreai-opt[onnx]'"


class ONNXTarget:
    """``model.onnx``. ONNX has no sparse weights that engines take: an archive of it is small."""

    name = "onnx"
    extra = "onnx"

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        program = exported(self.name, model, example)
        path = directory / "model.onnx"
        with converting(self.name, "torch.onnx cannot export the model"):
            made: Any = torch.onnx.export(program, verbose=False, external_data=False)
            made.save(path)
        if find_spec("onnxruntime") is None:
            return Artefact((path,), None, MISSING)
        return Artefact((path,), ONNXModel(path))


class ONNXModel:
    """A model in onnxruntime, on the CPU.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._path = path
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Tensor) -> Tensor:
        outputs = self._session.run(None, {self._input: batch.numpy()})
        return torch.from_numpy(outputs[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)
