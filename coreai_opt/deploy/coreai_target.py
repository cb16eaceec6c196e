"""Target Core AI: ``model.aimodel`` with sparse weights; coreai-core computes with it."""

import asyncio
import contextlib
import io
import weakref
from pathlib import Path
from typing import Any

import torch
from coreai.authoring import AIModelAsset
from coreai.runtime import NDArray
from torch import Tensor, nn

from coreai_opt.common import ExportBackend
from coreai_opt.deploy.artefact import Artefact
from coreai_opt.deploy.exporting import converting, exported
from coreai_opt.pruning.model.copying import copy_of
from coreai_opt.pruning.saving._coreai_internals import TorchConverter, get_decomp_table
from coreai_opt.pruning.saving.backends import to_backend

THREADS = "coreai-core chooses its own number of threads"


class CoreAITarget:
    """``model.aimodel``: of sparse weights a bit mask and the nonzero values are stored."""

    name = "coreai"
    extra = "coreai"

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        sparse = to_backend(copy_of(model), ExportBackend.CoreAI).requires_grad_(False)
        program = exported(self.name, sparse, example)
        path = directory / "model.aimodel"
        silent = contextlib.redirect_stdout(io.StringIO())
        with converting(self.name, "coreai-torch cannot convert the model"), silent:
            decomposed = program.run_decompositions(get_decomp_table())
            made = TorchConverter().add_exported_program(decomposed).to_coreai()
            made.save_asset(path)
        with converting(self.name, "coreai-core cannot load the model"):
            return Artefact((path,), CoreAIModel(path), note=THREADS)


class CoreAIModel:
    """A model in coreai-core.

    Args:
        path: of the asset.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Its functions are coroutines; a loop of their own costs less than one a call.
        self._loop = asyncio.new_event_loop()
        stack = contextlib.AsyncExitStack()
        self._function = self._loop.run_until_complete(_main_of(path, stack))
        self._input = self._function.desc.input_names[0]
        weakref.finalize(self, _close, self._loop, stack)

    def __call__(self, batch: Tensor) -> Tensor:
        inputs = {self._input: NDArray(batch.numpy())}
        outputs = self._loop.run_until_complete(self._function(inputs))
        return torch.from_numpy(next(iter(outputs.values())).numpy())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)


async def _main_of(path: Path, stack: contextlib.AsyncExitStack) -> Any:
    """Return the function of an asset, which stays open for as long as the stack does."""
    model = await stack.enter_async_context(AIModelAsset.load(path).executable())
    return model.load_function("main")


def _close(loop: asyncio.AbstractEventLoop, stack: contextlib.AsyncExitStack) -> None:
    loop.run_until_complete(stack.aclose())
    loop.close()
