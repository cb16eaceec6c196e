"""Trainers of both roots of Lightning in one job: each is given callbacks of its own root."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.lightning import loader
from tests.plugin.conftest import Job

pytest.importorskip("lightning", reason="needs the extra lightning")

import lightning.pytorch as unified
import pytorch_lightning as standalone
import torch
from torch import nn

pytestmark = pytest.mark.apart


def fitted(root: Any, folder: Path, *callbacks: Any) -> tuple[Any, Any]:
    """Return a trainer of a root that has fitted, and its module."""

    class Module(root.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 4)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return (self.first(batch[0]) - batch[1]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = root.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    trainer.fit(module, loader(8))
    return trainer, module


def test_trainers_of_two_roots_in_one_job(job: Job, tmp_path: Path) -> None:
    line = ["+prune=constant", "prune.target_sparsity=0.5", "prune.monitor=true"]
    with job(*line):
        for root in (unified, standalone):
            trainer, module = fitted(root, tmp_path)
            assert float((module.first.weight == 0).float().mean()) == 0.5
            names = [type(callback).__name__ for callback in trainer.callbacks]
            assert names == [
                "JobCallback",
                "ScheduledPruning",
                "TargetGate",
                "PrunedWeights",
                "SparsityMonitor",
            ]
            assert all(isinstance(callback, root.Callback) for callback in trainer.callbacks)
    assert len(list((tmp_path / "job").glob("weights*.pt"))) == 2


def test_a_pruning_of_the_other_roots_package_is_kept(job: Job, tmp_path: Path) -> None:
    from lightning_callbacks import lightning_pytorch

    own = lightning_pytorch.ScheduledPruning(target_sparsity=0.25)
    with job("+prune=constant", "prune.target_sparsity=0.5"):
        trainer, module = fitted(unified, tmp_path, own)
    assert float((module.first.weight == 0).float().mean()) == 0.25
    assert [type(one).__name__ for one in trainer.callbacks].count("ScheduledPruning") == 1
