"""Early stopping whose patience begins at target sparsity."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from lightning_callbacks import TargetSparsityEarlyStopping
from tests.helpers.lightning import WORSENING, ScriptedModule, loader, make_trainer, pruned_from


def fit(root: Path, *callbacks: pl.Callback, module: Any = None, **settings: Any) -> pl.Trainer:
    trainer = make_trainer(root, *callbacks, **{"max_epochs": 6, **settings})
    trainer.fit(module or ScriptedModule(), loader(), loader(2))
    return trainer


def stopping(monitor: str, kind: type = TargetSparsityEarlyStopping, **settings: Any) -> Any:
    return kind(monitor, mode="max", patience=1, **settings)


@pytest.mark.parametrize(("begin", "epoch"), [(0, 1), (16, 2), (17, 3), (20, 3), (24, 3)])
def test_patience_begins_with_the_first_validation_at_target(
    tmp_path: Path, begin: int, epoch: int
) -> None:
    stop = stopping("val")
    trainer = fit(tmp_path, pruned_from(begin), stop)
    assert (stop.stopped_epoch, trainer.global_step) == (epoch, 8 * (epoch + 1))
    assert float(stop.best_score) == pytest.approx(WORSENING[epoch - 1])


@pytest.mark.parametrize(("begin", "epoch"), [(16, 3), (17, 4), (20, 4)])
def test_patience_begins_with_the_first_whole_epoch_at_target(
    tmp_path: Path, begin: int, epoch: int
) -> None:
    stop = stopping("train")
    fit(tmp_path, pruned_from(begin), stop)
    assert stop.stopped_epoch == epoch


@pytest.mark.parametrize(("begin", "epoch"), [(16, 3), (17, 5)])
def test_patience_when_every_second_epoch_is_validated(
    tmp_path: Path, begin: int, epoch: int
) -> None:
    stop = stopping("val")
    fit(tmp_path, pruned_from(begin), stop, check_val_every_n_epoch=2)
    assert stop.stopped_epoch == epoch
