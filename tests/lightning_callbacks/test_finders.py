"""Lightning's LearningRateFinder and BatchSizeFinder: their trials leave no trace in pruning."""

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder
from pytorch_lightning.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

from coreai_opt.pruning import PruningError
from lightning_callbacks import ResumableCheckpoint, ScheduledPruning, SparsityMonitor
from lightning_callbacks._resume.dataloader_state import InexactResumeWarning
from tests.helpers.exactness import (
    BATCHES,
    INEXACT_WARNINGS,
    RESUMING_WARNINGS,
    NoisyModule,
    Training,
    at_step,
    plain,
)
from tests.helpers.lightning import (
    FIRST_LAYER,
    RecordingSchedule,
    TinyModule,
    linear_ramp,
    make_trainer,
    zeros,
)

pytestmark = [*RESUMING_WARNINGS, *INEXACT_WARNINGS]


class Tuned(TinyModule):
    """Has a learning rate and a batch size that are looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.lr, self.batch_size = 0.05, 4

    def train_dataloader(self) -> Any:
        generator = torch.Generator().manual_seed(1)
        data = torch.randn(64, 8, generator=generator), torch.randn(64, 4, generator=generator)
        return DataLoader(TensorDataset(*data), self.batch_size, shuffle=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class MidwayFinder(LearningRateFinder):
    """Looks for a learning rate when an epoch begins, as Lightning's documentation has it."""

    def on_fit_start(self, *args: Any) -> None:
        return

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.lr_find(trainer, pl_module)


def rate_finder(kind: type[LearningRateFinder] = LearningRateFinder) -> LearningRateFinder:
    return kind(max_lr=0.1, num_training_steps=12, early_stop_threshold=None)


def size_finder() -> BatchSizeFinder:
    return BatchSizeFinder(max_trials=3, init_val=2)  # 2, 4 and 8


FINDERS = {
    "rate": (rate_finder, 16),
    "rate in mid-training": (lambda: rate_finder(MidwayFinder), 16),
    "size": (size_finder, 8),
}


def rows(root: Path) -> list[tuple[int, float]]:
    with (root / "sparsity.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["layer"] == "total"]
    return [(int(row["step"]), float(row["scheduled"])) for row in table]


@pytest.mark.parametrize("is_first", [False, True], ids=["after ours", "before ours"])
@pytest.mark.parametrize("name", FINDERS)
def test_the_trial_is_not_on_the_schedules_clock(tmp_path: Path, name: str, is_first: bool) -> None:
    make, batches = FINDERS[name]
    schedule = RecordingSchedule(linear_ramp(12))
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER)
    ours = [pruning, SparsityMonitor(every_n_steps=4)]
    callbacks = [make(), *ours] if is_first else [*ours, make()]
    module = Tuned()
    make_trainer(tmp_path, *callbacks).fit(module)
    assert schedule.asked == list(range(2 * batches + 1))
    assert (pruning.clock, zeros(module.first.weight)) == (2 * batches, 0.5)
    assert [step for step, _ in rows(tmp_path)] == list(range(0, 2 * batches + 1, 4))


@pytest.mark.parametrize("name", ["rate", "size"])
def test_a_tuner_before_the_fit_leaves_masks_and_clock_as_they_were(
    tmp_path: Path, name: str
) -> None:
    schedule = RecordingSchedule(linear_ramp(12))
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER)
    module = Tuned()
    trainer = make_trainer(tmp_path, pruning, SparsityMonitor(every_n_steps=4))
    if name == "rate":
        found = Tuner(trainer).lr_find(module, max_lr=0.1, num_training=12)
        assert found is not None
    else:
        assert Tuner(trainer).scale_batch_size(module, max_trials=3) == 8
    assert not (tmp_path / "sparsity.csv").exists()
    trainer.fit(module)
    batches = FINDERS[name][1]
    assert schedule.asked == list(range(2 * batches + 1))
    assert zeros(module.first.weight) == 0.5
    assert [step for step, _ in rows(tmp_path)] == list(range(0, 2 * batches + 1, 4))


class Rated(NoisyModule):
    """Its learning rate is looked for."""

    def __init__(self) -> None:
        super().__init__(rated)
        self.lr = 0.1


def rated(module: Any) -> Any:
    return torch.optim.SGD(module.parameters(), lr=module.lr, momentum=0.9)


def test_a_learning_rate_that_was_found_goes_on(tmp_path: Path) -> None:
    training = Training(tmp_path, data=plain, make=Rated, callbacks=lambda: [rate_finder()])
    training.assert_goes_on(*[at_step(step) for step in (3, BATCHES, BATCHES + 2)])


@pytest.mark.filterwarnings("ignore:MidwayFinder runs trials of its own")
def test_a_trial_in_mid_training_is_repeated(tmp_path: Path) -> None:
    training = Training(
        tmp_path,
        data=plain,
        make=Rated,
        callbacks=lambda: [rate_finder(MidwayFinder)],
        settings={"max_epochs": 4},
    )
    training.assert_goes_on(at_step(3), at_step(BATCHES + 2), at_step(2 * BATCHES + 2))


def test_a_trial_that_is_not_repeated_exactly_is_a_warning(tmp_path: Path) -> None:
    training = Training(
        tmp_path, data=plain, make=Rated, callbacks=lambda: [rate_finder(MidwayFinder)]
    )
    training.run("stopped", at_step(BATCHES))
    with pytest.warns(InexactResumeWarning, match="MidwayFinder runs trials of its own"):
        training.run("stopped", resume=True)


class Stopped(Exception):
    """Ends a training between two steps."""


def sized_run(root: Path, stop: int | None = None, resume: bool = False) -> Tuned:
    """Train with a batch size that was found; stopped where it is asked to, and gone on with."""
    torch.manual_seed(stop or 0)

    def interruption() -> Stopped | None:
        return Stopped() if stop is not None and trainer.global_step >= stop else None

    pruning = ScheduledPruning(linear_ramp(12), target_sparsity=0.5)
    resumable = ResumableCheckpoint(root / "resume", interruption=interruption)
    trainer = make_trainer(root, size_finder(), pruning, resumable)
    torch.manual_seed(1)
    module = Tuned()
    path = resumable.newest() if resume else None
    try:
        trainer.fit(module, ckpt_path=path)
    except Stopped:
        assert trainer.global_step == stop
    return module


def test_a_batch_size_that_was_found_goes_on(tmp_path: Path) -> None:
    whole = sized_run(tmp_path / "whole")
    for stop in (3, 8, 11, None):
        module = sized_run(tmp_path / "stopped", stop, resume=stop != 3)
        assert module.batch_size == 8
    for key, value in whole.state_dict().items():
        assert torch.equal(value, module.state_dict()[key]), key


def trained(root: Path, *callbacks: pl.Callback) -> None:
    trainer = make_trainer(root, *callbacks)
    trainer.fit(Tuned())
    trainer.save_checkpoint(root / "last.ckpt")


@pytest.mark.parametrize("is_first", [False, True], ids=["after ours", "before ours"])
@pytest.mark.parametrize("name", ["rate", "size"])
def test_going_on_without_a_resumable_checkpoint_is_refused(
    tmp_path: Path, name: str, is_first: bool
) -> None:
    def callbacks(finders: list[pl.Callback]) -> list[pl.Callback]:
        pruning = ScheduledPruning(linear_ramp(12), target_sparsity=0.5)
        return [*finders, pruning] if is_first else [pruning, *finders]

    trained(tmp_path, *callbacks([]))
    trainer = make_trainer(tmp_path, *callbacks([FINDERS[name][0]()]), max_epochs=4)
    kind = "LearningRateFinder" if name == "rate" else "BatchSizeFinder"
    with pytest.raises(PruningError, match=rf"from step 32 .* at step 0: {kind} .*allowed: "):
        trainer.fit(Tuned(), ckpt_path=tmp_path / "last.ckpt")


def test_what_a_checkpoint_is_gone_on_with_is_told_by_its_steps(tmp_path: Path) -> None:
    class Forgetful(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer._checkpoint_connector.resume_end()

    pruning = ScheduledPruning(linear_ramp(12), target_sparsity=0.5)
    trained(tmp_path, pruning)
    pruning = ScheduledPruning(linear_ramp(12), target_sparsity=0.5)
    trainer = make_trainer(tmp_path, pruning, Forgetful(), max_epochs=4)
    with pytest.raises(PruningError, match=r"from step 32 .* at step 0: a callback has run"):
        trainer.fit(Tuned(), ckpt_path=tmp_path / "last.ckpt")
