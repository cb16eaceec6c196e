"""StochasticWeightAveraging beside pruning: its average, its extra epoch, and resuming it."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import StochasticWeightAveraging
from torch import Tensor, nn

from coreai_opt.pruning.model.stats import count_sparsity
from lightning_callbacks import ScheduledPruning
from lightning_callbacks.scheduled_pruning import RampTooLongError
from tests.helpers.averaging import (
    FIRST,
    Weights,
    arranged,
    assert_same,
    dense,
    masks,
    mean,
    pruned,
    train,
    under,
)
from tests.helpers.lightning import (
    FIRST_LAYER,
    EvaluatedModule,
    RecordingSchedule,
    SaveAt,
    linear_ramp,
    loader,
    make_trainer,
)

EPOCHS = 4


class NormalizedModule(EvaluatedModule):
    """With batch normalization, and so with an extra epoch that measures its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, features: Tensor) -> Tensor:
        return self.second(self.norm(self.first(features)).relu())


class EpochStarts(pl.Callback):
    """Keeps the dense weights as an epoch starts, and those of the first batch of the extra one."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []
        self.extra: Weights | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights.append(dense(pl_module))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.current_epoch == EPOCHS and self.extra is None:
            self.extra = dense(pl_module)


def averaging(**fields: Any) -> StochasticWeightAveraging:
    """Average from the second epoch on."""
    settings = {"swa_lrs": 0.01, "swa_epoch_start": 2, "annealing_epochs": 2}
    return StochasticWeightAveraging(**{**settings, **fields})


@pytest.mark.parametrize(
    ("make", "reached", "pruning_first"),  # the ramp over at the start, or going on
    [(EvaluatedModule, 9, True), (EvaluatedModule, 20, False), (NormalizedModule, 20, True)],
)
def test_a_training_ends_with_averages_under_its_masks(
    tmp_path: Path, make: Any, reached: int, pruning_first: bool
) -> None:
    pruning, seen = pruned(reached), EpochStarts()
    callbacks = arranged(pruning_first, pruning, averaging())
    module, _ = train(tmp_path, seen, *callbacks, make=make, max_epochs=EPOCHS)
    # Lightning averages what it finds when epochs start.
    found = dense(module) if make is EvaluatedModule else seen.extra
    expected = under(mean(seen.weights[1:EPOCHS]), masks(module))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert pruning.pruner is not None
    assert pruning.pruner.at_target()
    assert pruning.pruner.step_count == 8 * EPOCHS
    assert count_sparsity(module).achieved == 0.5


@FIRST
def test_the_statistics_of_the_extra_epoch_are_those_of_the_masked_average(
    tmp_path: Path, pruning_first: bool
) -> None:
    seen = EpochStarts()
    callbacks = arranged(pruning_first, pruned(), averaging())
    module, _ = train(tmp_path, *callbacks, seen, make=NormalizedModule, max_epochs=EPOCHS)
    assert seen.extra is not None
    weight = seen.extra["first.weight"]
    assert not weight[~masks(module)["first.weight"]].any()
    outputs = [batch[0] @ weight.T + seen.extra["first.bias"] for batch in loader()]
    expected = torch.stack([output.mean(0) for output in outputs]).mean(0)
    torch.testing.assert_close(module.norm.running_mean, expected)


@FIRST
@pytest.mark.parametrize(("interval", "end"), [("step", 32), ("epoch", 4), ("percent", 100)])
def test_the_extra_epoch_is_not_on_the_clock(
    tmp_path: Path, interval: Any, end: int, pruning_first: bool
) -> None:
    schedule = RecordingSchedule(linear_ramp(end))
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER, interval=interval)
    callbacks = arranged(pruning_first, pruning, averaging())
    train(tmp_path, *callbacks, make=NormalizedModule, max_epochs=EPOCHS)
    assert schedule.asked == list(range(end + 1))
    assert pruning.pruner is not None
    assert pruning.pruner.at_target()


@FIRST
@pytest.mark.parametrize(("interval", "end"), [("step", 32), ("epoch", 4)])
def test_a_ramp_that_needs_the_extra_epoch_is_refused(
    tmp_path: Path, interval: Any, end: int, pruning_first: bool
) -> None:
    pruning = ScheduledPruning(linear_ramp(end + 1), 0.5, interval=interval)
    callbacks = arranged(pruning_first, pruning, averaging())
    with pytest.raises(RampTooLongError, match=f"has {end};"):
        train(tmp_path, *callbacks, make=NormalizedModule, max_epochs=EPOCHS)


@pytest.mark.parametrize(("step", "hook"), [(5, "batch"), (16, "epoch"), (29, "batch")])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path: Path, step: int, hook: str) -> None:
    path = tmp_path / "cut.ckpt"
    given = {"max_epochs": EPOCHS}
    whole, _ = train(tmp_path, pruned(20), averaging(), SaveAt(path, step, hook), **given)
    resumed, _ = train(tmp_path, averaging(), pruned(20), seed=1, ckpt_path=path, **given)
    assert_same(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize(("step", "hook"), [(5, "batch"), (16, "epoch")])
def test_a_resumed_run_measures_the_same_statistics(tmp_path: Path, step: int, hook: str) -> None:
    path = tmp_path / "cut.ckpt"
    given = {"max_epochs": EPOCHS, "make": NormalizedModule}
    whole, _ = train(tmp_path, pruned(20), averaging(), SaveAt(path, step, hook), **given)
    resumed, _ = train(tmp_path, averaging(), pruned(20), seed=1, ckpt_path=path, **given)
    assert_same(resumed.state_dict(), whole.state_dict())


@FIRST
def test_a_new_process_tests_a_checkpoint(tmp_path: Path, pruning_first: bool) -> None:
    path = tmp_path / "end.ckpt"
    module, trainer = train(tmp_path, pruned(), averaging(), max_epochs=EPOCHS)
    trainer.save_checkpoint(path)
    torch.manual_seed(1)
    other = EvaluatedModule()
    callbacks = arranged(pruning_first, pruned(), averaging())
    make_trainer(tmp_path, *callbacks).test(other, loader(2), ckpt_path=path, verbose=False)
    assert_same(other.state_dict(), module.state_dict())
