"""Trainings that are stopped and gone on with, and all that has to be equal in the end."""

import json
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from coreai_opt.data.resumable import EpochSampler, ResumableLoader
from coreai_opt.pruning.config import PolynomialDecaySchedule
from lightning_callbacks import (
    ResumableCheckpoint,
    ScheduledPruning,
    SparsityMonitor,
    TargetSparsityCheckpoint,
)
from tests.helpers.lightning import make_trainer

# The folder of a CSVLogger holds what the training before has written: that is the point here.
RESUMING_WARNINGS = [
    pytest.mark.filterwarnings("ignore:(Experiment logs|Checkpoint) directory .* exists"),
]

# Lightning's own word, and ours, of a loader that keeps no state.
INEXACT_WARNINGS = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:resumed in the middle of an epoch"),
]

BATCHES, EPOCHS = 7, 2
RAMP = PolynomialDecaySchedule(total_iters=9, begin_step=1, update_frequency=3)
BY_EPOCH = PolynomialDecaySchedule(total_iters=2)

Stop = Callable[[pl.Trainer], bool]


class Stopped(Exception):
    """What ends a training between two steps."""


class NoisyModule(pl.LightningModule):
    """Draws random numbers of every kind, logs in many ways, and validates."""

    def __init__(self, configure: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        # TensorBoard writes a metric with them.
        self.save_hyperparameters({"rate": 0.1})
        self.configure = configure or momentum_with_steps
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(16, 4)
        self.mean = MeanMetric()

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log_noisily(loss, batch_idx)
        return loss

    def log_noisily(self, loss: Tensor, batch_idx: int) -> None:
        self.log("loss", loss, on_step=True, on_epoch=True)
        noise = random.random() + np.random.rand()
        self.log("noise", noise, on_step=False, on_epoch=True, prog_bar=True)
        self.mean(loss)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        if batch_idx % 3 == 0:
            self.log("sum", loss, reduce_fx="sum", on_step=False, on_epoch=True)
            self.log("max", loss, reduce_fx="max", on_step=True, on_epoch=True)
            self.log("min", loss, reduce_fx="min", on_step=False, on_epoch=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.loss(batch) + torch.rand(()))

    def configure_optimizers(self) -> Any:
        return self.configure(self)


def momentum_with_steps(module: nn.Module) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def dataset(batches: int = BATCHES) -> TensorDataset:
    """Return items of which 4 make a batch, the last one smaller."""
    size = 4 * batches - 1
    features = torch.randn(size, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(features, torch.arange(size) % 4)


def ours(workers: int = 0) -> ResumableLoader[Any]:
    data = dataset()
    return ResumableLoader(
        data,
        batch_size=4,
        sampler=EpochSampler(data, 1, 0, seed=3),
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(3),
    )


def plain(**settings: Any) -> DataLoader[Any]:
    return DataLoader(dataset(), 4, shuffle=True, **settings)


def at_step(step: int) -> Stop:
    return lambda trainer: trainer.global_step >= step


def at_batch(batch: int) -> Stop:
    """Stop after so many batches of all epochs, where optimizer steps are another number."""
    return lambda trainer: trainer.fit_loop.epoch_loop.batch_progress.total.completed >= batch


@dataclass
class Training:
    """How a training is set up; each run has a folder, a module and callbacks of its own."""

    root: Path
    data: Callable[[], Any] = ours
    make: Callable[[], pl.LightningModule] = NoisyModule
    callbacks: Callable[[], Iterable[pl.Callback]] = list
    interval: Any = "step"
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)

    def run(
        self, name: str, stop: Stop | None = None, resume: bool = False, seed: int = 0
    ) -> dict[str, Any] | None:
        """Train, and return what there is in the end; None when it was stopped."""
        for number in (torch.manual_seed, np.random.seed, random.seed):
            number(seed)
        folder = self.root / name
        module, trainer = self.make(), None

        def interruption() -> Stopped | None:
            return Stopped() if stop is not None and trainer and stop(trainer) else None

        resumable = ResumableCheckpoint(folder / "r", interruption=interruption, **self.checkpoint)
        schedule = BY_EPOCH if self.interval == "epoch" else RAMP
        if self.interval == "percent":
            schedule = PolynomialDecaySchedule(total_iters=80, update_frequency=20)
        best = TargetSparsityCheckpoint(
            folder / "best", monitor="val", save_top_k=2, save_last=True
        )
        pruning = ScheduledPruning(schedule, 0.5, interval=self.interval)
        common = {
            "max_epochs": EPOCHS,
            "log_every_n_steps": 2,
            "num_sanity_val_steps": 0,
            "logger": [CSVLogger(folder, "", ""), TensorBoardLogger(folder, "tb", "")],
        }
        trainer = make_trainer(
            folder,
            pruning,
            SparsityMonitor(),
            *self.callbacks(),
            best,
            resumable,
            **{**common, **self.settings, "enable_checkpointing": True},
        )
        path = resumable.newest() if resume else None
        assert (path is not None) == resume
        validation = DataLoader(dataset(), batch_size=16)
        try:
            trainer.fit(module, self.data(), validation, ckpt_path=path)
        except Stopped:
            return None
        return _outcome(folder, module, trainer)

    def assert_goes_on(self, *stops: Stop, whole: dict[str, Any] | None = None) -> None:
        """Stop one run at each of the places, one after the other, and compare."""
        expected = whole or self.run("whole")
        assert expected is not None
        shutil.rmtree(self.root / "stopped", ignore_errors=True)
        for number, stop in enumerate(stops):
            again = self.run("stopped", stop, resume=number > 0, seed=number)
            assert again is None, f"stop {number} came too late"
        actual = self.run("stopped", resume=True, seed=len(stops))
        assert actual is not None
        assert different(expected, actual) == {}


def different(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return both sides of what is not equal."""
    assert one.keys() == other.keys()
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves that TensorBoard would show."""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {
        tag: sorted((event.step, event.value) for event in read.Scalars(tag))
        for tag in read.Tags()["scalars"]
    }


def _outcome(folder: Path, module: pl.LightningModule, trainer: pl.Trainer) -> dict[str, Any]:
    drawn = [torch.rand(()).item(), np.random.rand(), random.random()]
    callbacks = {
        # Lightning saves the current score, and does not load it.
        callback.state_key: _plain(callback.state_dict() | {"current_score": None}, folder)
        for callback in trainer.callbacks
        if not isinstance(callback, ResumableCheckpoint)
    }
    counters = {key: each for key, each in trainer.fit_loop.state_dict().items() if "." in key}
    schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    return {
        "drawn": drawn,
        "model": _plain(module.state_dict(), folder),
        "optimizers": _plain([each.state_dict() for each in trainer.optimizers], folder),
        "schedulers": _plain(schedulers, folder),
        "callbacks": callbacks,
        "loops": _plain(counters, folder),
        "metrics": _plain(dict(sorted(trainer.callback_metrics.items())), folder),
        "metrics.csv": (folder / "metrics.csv").read_text(),
        "sparsity.csv": (folder / "sparsity.csv").read_text(),
        "events": events(folder / "tb"),
        "best": sorted(file.name for file in (folder / "best").iterdir()),
    }


def _plain(value: Any, folder: Path) -> str:
    def as_list(one: Any) -> Any:
        return one.tolist() if hasattr(one, "tolist") else str(one)

    return json.dumps(value, default=as_list).replace(str(folder), "")


def stateful(**settings: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(dataset(), 4, shuffle=True, **settings)


class PairsModule(NoisyModule):
    """Trains on the batches of two loaders."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pairs = [pair for pair in batch.values() if pair is not None]
        joined = [torch.cat([pair[index] for pair in pairs]) for index in (0, 1)]
        return super().training_step(joined, batch_idx)
