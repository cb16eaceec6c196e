"""Trainings whose epochs differ, or have a length that nobody knows: where a ramp ends in them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from coreai_opt.pruning.scheduling.ramps import RampTooLongError
from lightning_callbacks import ScheduledPruning
from tests.helpers.exactness import (
    INEXACT_WARNINGS,
    RESUMING_WARNINGS,
    NoisyModule,
    Training,
    at_batch,
    dataset,
)
from tests.helpers.lightning import (
    FIRST_LAYER,
    RecordingSchedule,
    Tape,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)

pytestmark = [
    *RESUMING_WARNINGS,
    *INEXACT_WARNINGS,
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
]

GROWING, SHRINKING = (2, 2, 4, 8), (8, 4, 2, 2)  # batches of an epoch; 16 in all
SIZES = pytest.mark.parametrize("sizes", [GROWING, SHRINKING], ids=["growing", "shrinking"])


class Changing(TinyModule):
    """Its epochs differ in length; it keeps the zeros at the end of each."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        self.shares: list[float] = []

    def train_dataloader(self) -> Any:
        return loader(self.sizes[self.trainer.current_epoch])

    def on_train_epoch_end(self) -> None:
        self.shares.append(zeros(self.first.weight))


def changing_run(root: Path, sizes: tuple[int, ...], pruning: ScheduledPruning) -> Changing:
    module = Changing(sizes)
    settings = {"max_epochs": 4, "reload_dataloaders_every_n_epochs": 1}
    make_trainer(root, pruning, **settings).fit(module)
    return module


@SIZES
def test_percent_counts_epochs_that_differ_alike(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    pruning = ScheduledPruning(linear_ramp(101), target_sparsity=0.5, interval="percent")
    with pytest.raises(RampTooLongError, match=r"after 101 percent .* has 100;"):
        changing_run(tmp_path, sizes, pruning)
    pruning = ScheduledPruning(linear_ramp(100), target_sparsity=0.5, interval="percent")
    module = changing_run(tmp_path, sizes, pruning)
    # The end of a ramp is its last update: at 99 of 100.
    assert (pruning.clock, module.shares) == (100, [16 / 128, 32 / 128, 48 / 128, 64 / 128])


@SIZES
def test_percent_moves_within_epochs_that_differ(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    schedule = RecordingSchedule()
    tape = Tape(schedule)
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER, interval="percent")
    settings = {"max_epochs": 4, "reload_dataloaders_every_n_epochs": 1}
    make_trainer(tmp_path, pruning, tape, **settings).fit(Changing(sizes))
    expected = [
        100 * (epoch * size + batch) // (4 * size)
        for epoch, size in enumerate(sizes)
        for batch in range(1, size + 1)
    ]
    assert tape.after_batch == expected


def test_a_ramp_that_ends_though_the_first_epochs_are_short_is_not_refused(tmp_path: Path) -> None:
    pruning = ScheduledPruning(linear_ramp(16), target_sparsity=0.5)
    with pytest.warns(UserWarning, match=r"with 2 batches in every epoch, .* 16 .* has 8;"):
        module = changing_run(tmp_path, GROWING, pruning)
    assert zeros(module.first.weight) == 0.5


def test_a_ramp_that_does_not_end_because_epochs_shrink_is_told_at_the_end(tmp_path: Path) -> None:
    pruning = ScheduledPruning(linear_ramp(20), target_sparsity=0.5)
    with pytest.warns(UserWarning, match=r"at step 16 of the schedule, which ends at 20, below"):
        module = changing_run(tmp_path, SHRINKING, pruning)
    assert 0 < zeros(module.first.weight) < 0.5


def test_max_steps_is_an_end_though_loaders_are_made_anew(tmp_path: Path) -> None:
    settings = {"max_epochs": 4, "max_steps": 12, "reload_dataloaders_every_n_epochs": 1}
    pruning = ScheduledPruning(linear_ramp(13), target_sparsity=0.5)
    with pytest.raises(RampTooLongError, match=r"after 13 steps"):
        make_trainer(tmp_path, pruning, **settings).fit(Changing(GROWING))
    pruning = ScheduledPruning(linear_ramp(100), target_sparsity=0.5, interval="percent")
    module = Changing(GROWING)
    make_trainer(tmp_path, pruning, **settings).fit(module)
    assert (pruning.clock, zeros(module.first.weight)) == (100, 0.5)


class Stream(IterableDataset[Any]):
    """Batches of unknown number."""

    def __init__(self, batches: int = 8) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.batches):
            yield [torch.randn(4, 8), torch.randn(4, 4)]


class Boasting(Stream):
    """Says that it has more than it has."""

    def __len__(self) -> int:
        return 10


def streamed(data: Stream | None = None) -> DataLoader[Any]:
    return DataLoader(data or Stream(), batch_size=None)


def percent_after_batches(root: Path, data: Any, **settings: Any) -> list[int]:
    schedule = RecordingSchedule()
    tape = Tape(schedule)
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER, interval="percent")
    make_trainer(root, pruning, tape, **settings).fit(TinyModule(), data)
    assert schedule.asked == list(range(101))
    return tape.after_batch


def test_percent_without_a_length_passes_with_the_epochs(tmp_path: Path) -> None:
    after = percent_after_batches(tmp_path, streamed(), max_epochs=2)
    assert after == [*[0] * 7, *[50] * 8, 100]


def test_percent_without_a_length_waits_for_the_accumulated_step(tmp_path: Path) -> None:
    after = percent_after_batches(tmp_path, streamed(), max_epochs=2, accumulate_grad_batches=3)
    assert after == [*[0] * 7, *[50] * 8, 100]


def test_percent_without_a_length_is_of_max_steps(tmp_path: Path) -> None:
    after = percent_after_batches(tmp_path, streamed(), max_steps=10)
    assert after == list(range(10, 101, 10))


def test_a_limit_of_batches_is_a_length(tmp_path: Path) -> None:
    settings = {"max_epochs": 2, "limit_train_batches": 5}
    after = percent_after_batches(tmp_path, streamed(), **settings)
    assert after == list(range(10, 101, 10))
    pruning = ScheduledPruning(linear_ramp(11), target_sparsity=0.5)
    # Refused in a training of its full length; this one may be a trial.
    with pytest.warns(UserWarning, match=r"cut short.* after 11 steps .* has 10;"):
        make_trainer(tmp_path, pruning, **settings).fit(TinyModule(), streamed())


SHORTENED: list[dict[str, Any]] = [
    {"fast_dev_run": True},
    {"fast_dev_run": 3},
    {"overfit_batches": 2, "max_epochs": 2},
    {"limit_train_batches": 0.5, "max_epochs": 2},
]


@pytest.mark.parametrize("settings", SHORTENED, ids=str)
@pytest.mark.filterwarnings("ignore:You requested to overfit", "ignore:.*below the target sparsity")
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_training_that_is_cut_short_runs_with_a_warning(
    tmp_path: Path, settings: dict[str, Any], interval: Any
) -> None:
    pruning = ScheduledPruning(linear_ramp(400), target_sparsity=0.5, interval=interval)
    trainer = make_trainer(tmp_path, pruning, **settings)
    with pytest.warns(UserWarning, match="cut short, as for a trial, the ramp cannot end"):
        trainer.fit(TinyModule(), loader(8))
    assert trainer.state.finished
    assert trainer.global_step > 0


@pytest.mark.parametrize("settings", [{}, {"limit_train_batches": 9}], ids=["own", "limit"])
def test_percent_ends_though_the_data_ends_before_its_length(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    pruning = ScheduledPruning(linear_ramp(100), target_sparsity=0.5, interval="percent")
    module = TinyModule()
    trainer = make_trainer(tmp_path, pruning, **settings)
    trainer.fit(module, streamed(Boasting()))
    assert (trainer.global_step, pruning.clock, zeros(module.first.weight)) == (16, 100, 0.5)


class Several(TinyModule):
    """Trains with several loaders at once."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.stack([self.loss(one) for one in batch if one is not None]).sum()


@pytest.mark.parametrize(
    ("mode", "batches"), [("min_size", 4), ("max_size", 6), ("max_size_cycle", 6)]
)
def test_several_loaders(tmp_path: Path, mode: Any, batches: int) -> None:
    combined = CombinedLoader([loader(4), loader(6)], mode)
    for interval, length in (("step", 2 * batches), ("percent", 100)):
        pruning = ScheduledPruning(linear_ramp(length), target_sparsity=0.5, interval=interval)
        module = Several()
        make_trainer(tmp_path, pruning).fit(module, combined)
        assert (pruning.clock, zeros(module.first.weight)) == (length, 0.5)
    pruning = ScheduledPruning(linear_ramp(2 * batches + 1), target_sparsity=0.5)
    with pytest.raises(RampTooLongError, match=rf"has {2 * batches};"):
        make_trainer(tmp_path, pruning).fit(Several(), combined)


@pytest.mark.parametrize(
    ("interval", "settings", "total"),
    [
        ("step", {"max_epochs": 3}, 2 + 8 + 8),
        ("step", {"max_epochs": 3, "max_steps": 7}, 7),
        ("epoch", {"max_steps": 11}, 3),
    ],
)
def test_an_accumulation_that_changes_is_counted(
    tmp_path: Path, interval: Any, settings: dict[str, Any], total: int
) -> None:
    for end in (total, total + 1):
        pruning = ScheduledPruning(linear_ramp(end), target_sparsity=0.5, interval=interval)
        changing = GradientAccumulationScheduler({0: 4, 1: 1})
        module, trainer = TinyModule(), make_trainer(tmp_path, pruning, changing, **settings)
        if end == total:
            trainer.fit(module, loader())
            assert (pruning.clock, zeros(module.first.weight)) == (total, 0.5)
        else:
            with pytest.raises(RampTooLongError, match=rf"has {total};"):
                trainer.fit(module, loader())


def test_a_training_that_its_time_ends_says_how_far_the_ramp_came(tmp_path: Path) -> None:
    class Slow(TinyModule):
        def on_train_batch_end(self, *args: Any) -> None:
            time.sleep(0.2 * (self.global_step == 4))

    pruning = ScheduledPruning(linear_ramp(100), target_sparsity=0.5, interval="percent")
    trainer = make_trainer(
        tmp_path, pruning, max_epochs=4, max_time={"milliseconds": 150}, devices=1
    )
    with pytest.warns(UserWarning, match=r"at percent \d+ of the schedule, which ends at 100"):
        trainer.fit(Slow(), loader())
    assert pruning.clock < 100


class NoisyAndGrowing(NoisyModule):
    """Its second epoch is longer than the first, and the third longer again."""

    def train_dataloader(self) -> Any:
        return DataLoader(dataset(self.trainer.current_epoch + 3), 4, shuffle=True)


class NoisyStream(IterableDataset[Any]):
    """Items in an order that is drawn anew."""

    def __iter__(self) -> Iterator[Any]:
        data = dataset()
        for index in torch.randperm(len(data)):
            yield data[int(index)]


@pytest.mark.filterwarnings("ignore:with 3 batches in every epoch")
@pytest.mark.parametrize("interval", [pytest.param("step", marks=pytest.mark.slow), "percent"])
def test_epochs_that_grow_go_on_exactly(tmp_path: Path, interval: str) -> None:
    settings = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    training = Training(
        tmp_path,
        data=lambda: None,
        make=NoisyAndGrowing,
        interval=interval,
        settings=settings,
    )
    training.assert_goes_on(at_batch(2), at_batch(3), at_batch(5), at_batch(10))


@pytest.mark.parametrize("batch", [3, 7, 10])
def test_percent_without_a_length_goes_on_exactly(tmp_path: Path, batch: int) -> None:
    training = Training(
        tmp_path, data=lambda: DataLoader(NoisyStream(), batch_size=4), interval="percent"
    )
    training.assert_goes_on(at_batch(batch))


@pytest.mark.parametrize("limit", [{"max_epochs": 0}, {"max_epochs": 2, "limit_train_batches": 0}])
def test_a_training_that_never_begins_is_told(tmp_path: Path, limit: dict[str, Any]) -> None:
    pruning = ScheduledPruning(linear_ramp(4), target_sparsity=0.5)
    trainer = make_trainer(tmp_path, pruning, **limit)
    with pytest.warns(UserWarning, match=r"at step 0 .* below the target sparsity: 0.0000 of 0.5"):
        trainer.fit(TinyModule(), loader())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used")
def test_epochs_count_from_a_checkpoint_of_an_epochs_last_batch(tmp_path: Path) -> None:
    def trained(*callbacks: pl.Callback, checkpoint: str | None = None) -> dict[str, Tensor]:
        pl.seed_everything(1, verbose=False)
        module = TinyModule()
        pruning = ScheduledPruning(linear_ramp(4), target_sparsity=0.5, interval="epoch")
        enabled = {"enable_checkpointing": bool(callbacks), "max_epochs": 5}
        trainer = make_trainer(tmp_path, pruning, *callbacks, **enabled)
        trainer.fit(module, loader(), ckpt_path=checkpoint, weights_only=True)
        return module.state_dict()

    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=8, save_top_k=-1)
    whole = trained(saving)
    again = trained(checkpoint=str(tmp_path / "step=16.ckpt"))  # of the last batch of epoch 1
    assert all(torch.equal(whole[name], again[name]) for name in whole)
