"""A training that is stopped between two steps and gone on with equals one that never stopped."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
)
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassPrecision, MulticlassRecall
from torchmetrics.regression import ConcordanceCorrCoef, PearsonCorrCoef

from tests.helpers.exactness import (
    BATCHES,
    EPOCHS,
    INEXACT_WARNINGS,
    RESUMING_WARNINGS,
    NoisyModule,
    Stop,
    Training,
    at_batch,
    at_step,
    different,
    ours,
    plain,
)
from tests.helpers.lightning import float16

pytestmark = [*RESUMING_WARNINGS, *INEXACT_WARNINGS]
LAST = BATCHES * EPOCHS


# The masks are made anew after steps 1, 4, 7 and 10.
@pytest.mark.parametrize("step", [1, 4, BATCHES, LAST])
def test_wherever_it_is_stopped(tmp_path: Path, step: int) -> None:
    Training(tmp_path).assert_goes_on(at_step(step))


def test_however_often_it_is_stopped(tmp_path: Path) -> None:
    stops = [at_step(step) for step in (1, 2, BATCHES, BATCHES + 1, LAST)]
    Training(tmp_path).assert_goes_on(*stops)


@pytest.mark.parametrize(("interval", "step"), [("epoch", BATCHES), ("percent", 3)])
def test_whatever_the_schedule_counts(tmp_path: Path, interval: str, step: int) -> None:
    Training(tmp_path, interval=interval).assert_goes_on(at_step(step))


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_steps": 10, "max_epochs": None}, (4, 10)),
        ({"val_check_interval": 3}, (3, 4)),
        ({"val_check_interval": 0.4}, (2, BATCHES + 3)),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, (5, BATCHES)),
        ({"check_val_every_n_epoch": 2}, (BATCHES,)),
        ({"limit_train_batches": 4, "max_epochs": 3}, (2, 4)),
        ({"reload_dataloaders_every_n_epochs": 1}, (2, BATCHES)),
        ({"num_sanity_val_steps": 1}, (1, BATCHES)),
        ({"gradient_clip_val": 0.1}, (5,)),
        ({"overfit_batches": 3, "max_epochs": 4}, (2, 3)),
    ],
    ids=str,
)
def test_whatever_the_trainer_is_told(
    tmp_path: Path, settings: dict[str, Any], steps: tuple[int, ...]
) -> None:
    training = Training(tmp_path, settings=settings)
    training.assert_goes_on(*[at_step(step) for step in steps])


# Of 7 batches the last one makes a step of its own.
@pytest.mark.parametrize("batch", [1, BATCHES])
def test_with_accumulated_gradients(tmp_path: Path, batch: int) -> None:
    settings = {"accumulate_grad_batches": 3, "max_epochs": 4}
    Training(tmp_path, settings=settings).assert_goes_on(at_batch(batch))


@pytest.mark.parametrize("batch", [BATCHES, BATCHES + 3])
def test_with_another_accumulation_in_each_epoch(tmp_path: Path, batch: int) -> None:
    training = Training(
        tmp_path,
        callbacks=lambda: [GradientAccumulationScheduler({0: 1, 1: 3})],
        settings={"max_epochs": 3},
    )
    training.assert_goes_on(at_batch(batch))


class AccumulatingModule(NoisyModule):
    """Accumulates gradients by itself, and steps two optimizers in turn."""

    def __init__(self) -> None:
        super().__init__(configure=lambda module: module.pair())
        self.automatic_optimization = False

    def pair(self) -> Any:
        optimizers = [torch.optim.Adam(part.parameters(), 0.01) for part in (self.body, self.head)]
        return optimizers, [torch.optim.lr_scheduler.StepLR(each, 2, 0.5) for each in optimizers]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.loss(batch)
        self.manual_backward(loss / 2)
        self.log_noisily(loss.detach(), batch_idx)
        for index, each in enumerate(self.optimizers()):
            if batch_idx % 2 == index:
                each.step()
                each.zero_grad()
                self.lr_schedulers()[index].step()


@pytest.mark.parametrize("batch", [1, BATCHES + 2])
def test_with_manual_optimization(tmp_path: Path, batch: int) -> None:
    Training(tmp_path, make=AccumulatingModule).assert_goes_on(at_batch(batch))


def on_plateau(module: nn.Module) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val"}}


def by_epoch(module: nn.Module) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


@pytest.mark.parametrize(
    ("configure", "step"), [(on_plateau, 2 * BATCHES + 1), (by_epoch, BATCHES - 1)]
)
def test_with_rates_that_follow_epochs(tmp_path: Path, configure: Any, step: int) -> None:
    training = Training(tmp_path, make=lambda: NoisyModule(configure), settings={"max_epochs": 3})
    training.assert_goes_on(at_step(step))


class OverflowingModule(NoisyModule):
    """In some batches there are gradients that a gradient scaler does not step with."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * torch.inf if batch_idx in (1, 4) else loss


def without_rates(module: nn.Module) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("batch", [2, 9])
def test_with_steps_that_a_gradient_scaler_skips(tmp_path: Path, batch: int) -> None:
    def run(name: str, stop: Stop | None = None, resume: bool = False) -> Any:
        # The scaler is a part of the trainer: each run has its own.
        settings = {"max_epochs": 3, "plugins": [float16()]}
        training = Training(tmp_path, make=make, settings=settings)
        return training.run(name, stop, resume, seed=resume)

    make = partial(OverflowingModule, without_rates)
    whole = run("whole")
    assert run("stopped", at_batch(batch)) is None
    assert run("stopped", resume=True) == whole


class DrawingModule(NoisyModule):
    """Its hooks draw random numbers, and log."""

    def draw(self, name: str) -> None:
        self.log(name, torch.rand(()), on_step="batch" in name, on_epoch="batch" not in name)

    def on_train_start(self) -> None:
        torch.rand(())

    def on_train_epoch_start(self) -> None:
        self.draw("epoch_start")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.draw("batch_start")

    def on_train_batch_end(self, *args: Any) -> None:
        self.draw("batch_end")

    def on_validation_epoch_end(self) -> None:
        self.draw("validation_end")

    def on_train_epoch_end(self) -> None:
        self.draw("epoch_end")

    def on_train_end(self) -> None:
        torch.rand(())


@pytest.mark.parametrize(("data", "step"), [(ours, 2), (plain, BATCHES), (plain, LAST)])
def test_with_hooks_that_draw_random_numbers(tmp_path: Path, data: Any, step: int) -> None:
    Training(tmp_path, data, make=DrawingModule).assert_goes_on(at_step(step))


@pytest.mark.parametrize("step", [3, BATCHES])
def test_with_an_average_of_the_weights(tmp_path: Path, step: int) -> None:
    training = Training(tmp_path, callbacks=lambda: [EMAWeightAveraging(decay=0.7)])
    training.assert_goes_on(at_step(step))


class MeasuredModule(NoisyModule):
    """Logs a collection of metrics that share their counts."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = MetricCollection([MulticlassPrecision(4), MulticlassRecall(4)])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.scores.update(self.head(self.body(batch[0])), batch[1])
        self.log_dict(self.scores, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


class SilentlyMeasuredModule(NoisyModule):
    """Updates a collection in each batch, and asks for it when the epoch ends."""

    def __init__(self) -> None:
        super().__init__()
        # Their counts are new tensors at each update.
        self.scores = MetricCollection([ConcordanceCorrCoef(), PearsonCorrCoef()])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.scores.update(self.head(self.body(batch[0]))[:, 0], batch[1].float())
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.scores.compute())
        self.scores.reset()


@pytest.mark.parametrize(("make", "step"), [(MeasuredModule, BATCHES), (SilentlyMeasuredModule, 4)])
def test_with_metrics_that_share_their_state(tmp_path: Path, make: Any, step: int) -> None:
    Training(tmp_path, make=make).assert_goes_on(at_step(step))


class BrokenOffModule(NoisyModule):
    """Ends an epoch early, as Lightning allows it."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 5 else None


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
@pytest.mark.filterwarnings("ignore:TargetSparsityCheckpoint has chosen nothing")
@pytest.mark.parametrize("step", [5, 8])
def test_with_epochs_that_are_broken_off(tmp_path: Path, step: int) -> None:
    training = Training(tmp_path, make=BrokenOffModule, settings={"max_epochs": 3})
    whole = training.run("whole")
    training.run("stopped", at_step(step))
    resumed = training.run("stopped", resume=True, seed=1)
    # Lightning counts the batch that was fetched and not used, and only here.
    assert different(whole, resumed).keys() <= {"loops"}


class ScoredModule(NoisyModule):
    """Logs a score that was written beforehand for each epoch."""

    SCORES = (0.5, 0.6, 0.7, 0.1, 0.2)

    def on_validation_epoch_end(self) -> None:
        self.log("score", self.SCORES[self.current_epoch])


def early_stopping() -> list[pl.Callback]:
    return [EarlyStopping("score", patience=1)]


@pytest.mark.parametrize("step", [BATCHES, 2 * BATCHES])
def test_with_early_stopping(tmp_path: Path, step: int) -> None:
    settings = {"max_epochs": 5}
    training = Training(tmp_path, make=ScoredModule, callbacks=early_stopping, settings=settings)
    training.assert_goes_on(at_step(step))


def test_with_early_stopping_that_waits_for_min_epochs(tmp_path: Path) -> None:
    # It says stop in epoch 1, and the score is good again when min_epochs is reached.
    settings = {"max_epochs": 5, "min_epochs": 4}
    training = Training(tmp_path, make=ScoredModule, callbacks=early_stopping, settings=settings)
    whole = training.run("whole")
    for step in (2 * BATCHES + 1, 3 * BATCHES):
        training.assert_goes_on(at_step(step), whole=whole)
