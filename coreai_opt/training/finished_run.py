"""Finished run, loaded again: its network with the weights of a file, and its data.

What is done to a trained model afterwards (deployment, sensitivity) begins here.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
)
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from coreai_opt.config.errors import ConfigError
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.paths import RunPaths
from coreai_opt.training.build import build_parts
from coreai_opt.training.initial_weights import load_initial_weights, start_from

ALLOWED = "allowed: the directory of a completed run, or a checkpoint or weights.pt in one"


class NoRunError(ValueError):
    """A path does not lead to a trained model that can be loaded again."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that is loaded again.

    Attributes:
        paths: of the run directory.
        record: the run's ``result.json``.
        weights: the file that the weights are from.
        module: the Lightning module, in evaluation mode, with masks folded into its weights.
        network: the part of it whose weights are exported.
        data: the data module, set up for no stage yet.
    """

    paths: RunPaths
    record: Mapping[str, Any]
    weights: Path
    module: pl.LightningModule
    network: nn.Module
    data: pl.LightningDataModule

    def trainer(self) -> pl.Trainer:
        """Return a trainer that validates and tests on the CPU, and writes nothing."""
        return _trainer()

    def test_inputs(self, limit: int) -> Tensor:
        """Return up to ``limit`` inputs of the test data, or of the validation data without it.

        Raises:
            NoRunError: the data gives no tensors.
        """
        self.data.prepare_data()
        stage = "test" if is_overridden("test_dataloader", self.data) else "validate"
        self.data.setup(stage)
        loader = self.data.test_dataloader() if stage == "test" else self.data.val_dataloader()
        parts: list[Tensor] = []
        for inputs in _inputs_of(loader):
            parts.append(inputs[: limit - sum(map(len, parts))])
            if sum(map(len, parts)) >= limit:
                break
        if not parts:
            raise NoRunError(f"the {stage} data of {str(self.paths.root)!r} gives no tensors")
        return torch.cat(parts)


def load_run(path: str | Path) -> FinishedRun:
    """Load a finished run again.

    Args:
        path: a run directory (its ``weights.pt`` is taken), or a checkpoint or ``weights.pt`` in
            one, however deep.

    Raises:
        NoRunError: there is no such run, it has not come to its weights, or the file does not fit.
        ConfigError: what its config names cannot be made any more.
    """
    path = Path(path)
    if not path.exists():
        raise NoRunError(f"there is no {str(path)!r}; {ALLOWED}")
    run = _run_around(path)
    record = run.record
    weights = path if path.is_file() else run.paths.weights
    if not weights.is_file():
        status = record.get("status")
        raise NoRunError(f"{str(path)!r} has no weights.pt, its status is {status}; {ALLOWED}")
    module, network, data = build_parts(record["config"], record.get("overrides") or [])
    with _about_the_file():
        start_from(module, network, weights)
        _set_up(module)
    return FinishedRun(run.paths, record, weights, module.eval(), network.eval(), data)


def _trainer() -> pl.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # "GPU available: False"
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],  # within SLURM as well: one process
    )


def load_weights(network: nn.Module, path: Path) -> None:
    """Load the weights of any checkpoint into a network, as ``init_from`` does.

    Raises:
        NoRunError: the file is no checkpoint, or not one of this network.
    """
    with _about_the_file():
        load_initial_weights(network, path)


@contextmanager
def _about_the_file() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise NoRunError(str(error).removeprefix("init_from=")) from error


def _run_around(path: Path) -> ExistingRun:
    found = (ExistingRun.at(folder) for folder in (path, *path.resolve().parents))
    run = next((one for one in found if one is not None), None)
    if run is None:
        raise NoRunError(f"{str(path)!r} is not in the directory of a run; {ALLOWED}")
    if run.paths.inner:
        raise NoRunError(f"{str(path)!r} is of another app, whose model only that app can make")
    return run


def _set_up(module: pl.LightningModule) -> None:
    # Layers that are made in these hooks get their weights there; a hook may ask for the trainer.
    if not any(is_overridden(name, module) for name in ("configure_model", "setup")):
        return
    module.trainer = _trainer()
    module.configure_model()
    module.setup("test")
    module.trainer = None


def _inputs_of(loaders: Any) -> Iterator[Tensor]:
    loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
    for batch in loaders[0] if loaders else ():
        inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(inputs, Tensor) or inputs.ndim == 0:
            return
        yield inputs
