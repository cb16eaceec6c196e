"""Early stopping whose patience begins at target sparsity."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from lightning_callbacks import TargetSparsityEarlyStopping
from tests.helpers.lightning import (
    LIGHTNING_WARNINGS,
    WORSENING,
    ScriptedModule,
    loader,
    make_trainer,
    pruned_from,
)

pytestmark = LIGHTNING_WARNINGS


def fit(root: Path, *callbacks: pl.Callback, module: Any = None, **settings: Any) -> pl.Trainer:
    trainer = make_trainer(root, *callbacks, **{"max_epochs": 6, **settings})
    trainer.fit(module or ScriptedModule(), loader(), loader(2))
    return trainer


def stopping(monitor: str, kind: type = TargetSparsityEarlyStopping, **settings: Any) -> Any:
    return kind(monitor, mode="max", patience=1, **settings)


def test_lightning_s_own_would_end_before_the_ramp(tmp_path: Path) -> None:
    stop = stopping("val", EarlyStopping)
    with pytest.warns(UserWarning, match="below the target sparsity: "):
        fit(tmp_path, pruned_from(20), stop)
    assert stop.stopped_epoch == 1


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


def test_patience_when_an_epoch_is_validated_twice(tmp_path: Path) -> None:
    stop = stopping("val")
    module = ScriptedModule(WORSENING, by_validation=True)
    # Validated at 4, 8, 12 and 16: the third is the first at target.
    settings = {"max_epochs": 3, "val_check_interval": 0.5}
    trainer = fit(tmp_path, pruned_from(11), stop, module=module, **settings)
    assert trainer.global_step == 16


def test_patience_does_not_begin_with_the_mean_of_a_dense_epoch(tmp_path: Path) -> None:
    # Validation at the end of epochs 1, 3 and 5 finds the means of epochs 0, 2 and 4.
    stop = stopping("train")
    fit(tmp_path, pruned_from(12), stop, check_val_every_n_epoch=2)
    assert stop.stopped_epoch == 5
