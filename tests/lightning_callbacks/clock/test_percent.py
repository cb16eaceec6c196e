"""``interval="percent"``: a ramp in proportion to the training, whatever its length in steps."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import GradientAccumulationScheduler

from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import (
    ManualModule,
    OverflowModule,
    TinyModule,
    float16,
    linear_ramp,
    loader,
    make_trainer,
    steps_asked,
    tape_of,
    zeros,
)


class HalfTime(pl.Callback):
    """Counts the zeros after the first of two epochs."""

    share = -1.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.share = zeros(pl_module.first.weight)


@pytest.mark.parametrize("batches", [8, 16, 50, 100], ids=lambda count: f"{count} batches")
def test_percent_is_in_proportion_whatever_the_batch_size(tmp_path: Path, batches: int) -> None:
    half = HalfTime()
    pruning = ScheduledPruning(linear_ramp(100), target_sparsity=0.5, interval="percent")
    module = TinyModule()
    make_trainer(tmp_path, pruning, half).fit(module, loader(batches, size=400 // batches))
    # 50 of the 99 parts of the ramp: floor(128 x 0.5 x 50 / 99) = 32 of 128.
    assert half.share == 32 / 128
    assert zeros(module.first.weight) == 0.5


def test_percent_is_asked_for_every_hundredth(tmp_path: Path) -> None:
    assert steps_asked(tmp_path, TinyModule(), interval="percent") == list(range(101))


def test_percent_is_rounded_down(tmp_path: Path) -> None:
    after_batch = tape_of(tmp_path, TinyModule(), batches=7, interval="percent", max_epochs=1)
    assert after_batch == [14, 28, 42, 57, 71, 85, 100]


@pytest.mark.parametrize(
    "settings",
    [{"accumulate_grad_batches": 3}, {"max_steps": 11}, {"limit_train_batches": 5}],
    ids=lambda settings: next(iter(settings)),
)
def test_percent_ends_with_the_training(tmp_path: Path, settings: dict[str, Any]) -> None:
    asked = steps_asked(tmp_path, TinyModule(), interval="percent", **settings)
    assert asked == list(range(101))


@pytest.mark.parametrize(
    "plan",
    [lambda batch: (0, 0), lambda batch: (0, 1), lambda batch: (batch % 2,)],
    ids=["two steps a batch", "two optimizers", "alternating"],
)
def test_percent_is_half_way_at_half_time_in_manual_optimization(tmp_path: Path, plan: Any) -> None:
    half = HalfTime()
    pruning = ScheduledPruning(linear_ramp(100), target_sparsity=0.5, interval="percent")
    module = ManualModule(plan)
    make_trainer(tmp_path, pruning, half).fit(module, loader())
    assert (half.share, zeros(module.first.weight)) == (32 / 128, 0.5)


def test_percent_ends_with_the_training_though_accumulation_changes(tmp_path: Path) -> None:
    changing = GradientAccumulationScheduler({0: 4, 1: 1})
    assert steps_asked(tmp_path, TinyModule(), changing, interval="percent") == list(range(101))


def test_percent_ends_with_the_training_though_steps_are_skipped(tmp_path: Path) -> None:
    module = OverflowModule({0})
    asked = steps_asked(tmp_path, module, interval="percent", plugins=[float16()])
    assert asked == list(range(101))


def test_percent_waits_for_the_optimizer_step_that_ends_an_accumulation(tmp_path: Path) -> None:
    settings = {"max_epochs": 1, "accumulate_grad_batches": 4}
    after_batch = tape_of(tmp_path, TinyModule(), interval="percent", **settings)
    assert after_batch == [0, 0, 0, 50, 50, 50, 50, 100]


@pytest.mark.parametrize(
    ("limits", "after_batch"),
    [
        ({"max_epochs": 10, "max_steps": 4}, [25, 50, 75, 100]),
        ({"max_epochs": 1, "max_steps": 100}, [25, 50, 75, 100]),
    ],
    ids=["steps end it", "epochs end it"],
)
def test_percent_is_of_the_limit_that_ends_the_training(
    tmp_path: Path, limits: dict[str, int], after_batch: list[int]
) -> None:
    assert tape_of(tmp_path, TinyModule(), batches=4, interval="percent", **limits) == after_batch
