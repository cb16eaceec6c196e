"""What ScheduledPruning refuses, what it warns about, and what it never waits for."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, IterableDataset

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    CosineSparsitySchedule,
    ExponentialSparsitySchedule,
    MultiStepSparsitySchedule,
)
from coreai_opt.pruning.errors import (
    DivergedWeightError,
    NoPrunableLayerError,
    UnknownModuleError,
)
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning
from lightning_callbacks.scheduled_pruning import RampTooLongError
from tests.helpers.lightning import (
    FIRST_LAYER,
    ManualModule,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)


class Endless(IterableDataset):
    """Data of unknown length: 8 batches of 4, but it does not say so."""

    def __iter__(self) -> Any:
        return iter([(torch.ones(8), torch.ones(4))] * 32)


def endless() -> DataLoader:
    return DataLoader(Endless(), batch_size=4)


def test_a_model_without_a_prunable_layer_is_refused(tmp_path: Path) -> None:
    class Scale(TinyModule):
        def __init__(self) -> None:
            super().__init__()
            del self.first, self.second
            self.scale = nn.Parameter(torch.ones(4))

    with pytest.raises(NoPrunableLayerError, match=r"nothing to prune.*Linear"):
        make_trainer(tmp_path, ScheduledPruning()).fit(Scale(), loader())


def test_a_name_that_matches_nothing_lists_the_layers(tmp_path: Path) -> None:
    pruning = ScheduledPruning(config={"module_name_configs": {"frist": None}})
    with pytest.raises(UnknownModuleError, match=r"'frist' matches no module.*first.*second"):
        make_trainer(tmp_path, pruning).fit(TinyModule(), loader())


LENGTHS = [
    ("step", {"max_epochs": 2}, 16),
    ("step", {"max_steps": 11}, 11),
    ("step", {"max_epochs": 2, "accumulate_grad_batches": 3}, 6),
    ("epoch", {"max_epochs": 3}, 3),
    ("epoch", {"max_epochs": 3, "accumulate_grad_batches": 3}, 3),
    ("epoch", {"max_steps": 17}, 3),
    ("percent", {"max_epochs": 2}, 100),
]


@pytest.mark.parametrize(("interval", "settings", "total"), LENGTHS)
@pytest.mark.parametrize("begin", [2])
def test_a_ramp_as_long_as_the_training_is_allowed(
    tmp_path: Path, interval: Any, settings: dict[str, Any], total: int, begin: int
) -> None:
    ramp = linear_ramp(total - begin, begin_step=begin)
    pruning = ScheduledPruning(ramp, target_sparsity=0.5, interval=interval)
    module = TinyModule()
    make_trainer(tmp_path, pruning, **settings).fit(module, loader())
    assert zeros(module.first.weight) == 0.5


@pytest.mark.parametrize(("interval", "settings", "total"), LENGTHS)
@pytest.mark.parametrize("begin", [0, 2])
def test_a_ramp_longer_by_one_names_both_numbers(
    tmp_path: Path, interval: Any, settings: dict[str, Any], total: int, begin: int
) -> None:
    ramp = linear_ramp(total - begin + 1, begin_step=begin)
    pruning = ScheduledPruning(ramp, target_sparsity=0.5, interval=interval)
    with pytest.raises(RampTooLongError, match=rf"{total + 1}\D.* has {total};") as caught:
        make_trainer(tmp_path, pruning, **settings).fit(TinyModule(), loader())
    assert (caught.value.end, caught.value.total) == (total + 1, total)
    assert caught.value.interval == interval


def test_the_schedule_of_a_named_module_is_checked_too(tmp_path: Path) -> None:
    named = {"module_name_configs": {"second": {"sparsity_schedule": linear_ramp(17)}}}
    with pytest.raises(RampTooLongError, match="ends after 17 steps"):
        make_trainer(tmp_path, ScheduledPruning(config=named)).fit(TinyModule(), loader())


ENDS = [
    (ConstantSparsitySchedule(begin_step=17), "begin_step <= 16"),
    (CosineSparsitySchedule(total_iters=17), "begin_step + total_iters <= 16"),
    (ExponentialSparsitySchedule(total_iters=7, begin_step=10), "begin_step + total_iters <= 16"),
    (MultiStepSparsitySchedule(milestones=[3, 17], levels=[0.5, 1]), "last milestone <= 16"),
    (SimpleNamespace(compute_sparsity=lambda *_: 0.5, end_step=17), "end_step <= 16"),
]


@pytest.mark.parametrize(("schedule", "allowed"), ENDS)
def test_the_end_of_a_schedule_is_said_in_its_own_words(
    tmp_path: Path, schedule: Any, allowed: str
) -> None:
    pruning = ScheduledPruning(schedule, target_sparsity=0.5)
    with pytest.raises(RampTooLongError, match="ends after 17 steps") as caught:
        make_trainer(tmp_path, pruning).fit(TinyModule(), loader())
    assert f"; allowed: {allowed}, or a longer training" in str(caught.value)


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_steps": 16}], ids=["epochs", "steps"])
def test_epochs_are_known_though_the_data_has_no_length(
    tmp_path: Path, limit: dict[str, int]
) -> None:
    pruning = ScheduledPruning(linear_ramp(2), target_sparsity=0.5, interval="epoch")
    module = TinyModule()
    make_trainer(tmp_path, pruning, **limit).fit(module, endless())
    assert zeros(module.first.weight) == 0.5


def test_a_ramp_of_too_many_epochs_is_refused_though_the_data_has_no_length(tmp_path: Path) -> None:
    pruning = ScheduledPruning(linear_ramp(3), target_sparsity=0.5, interval="epoch")
    with pytest.raises(RampTooLongError, match=r"3 epochs.* has 2;"):
        make_trainer(tmp_path, pruning, max_epochs=2).fit(TinyModule(), endless())


@pytest.mark.parametrize("limit", [{}, {"max_time": "00:01:00:00"}], ids=["none", "time"])
def test_percent_of_a_training_without_an_end_is_refused(
    tmp_path: Path, limit: dict[str, Any]
) -> None:
    pruning = ScheduledPruning(target_sparsity=0.5, interval="percent")
    has = "max_time, which is no number of steps" if limit else "no end"
    with pytest.raises(PruningError, match=rf"percent.*known length.* has {has} \(max_epochs=-1"):
        make_trainer(tmp_path, pruning, max_epochs=-1, **limit).fit(TinyModule(), endless())


@pytest.mark.parametrize("schedule", [object(), 0.5, "poly", SimpleNamespace(compute_sparsity=1)])
def test_an_object_without_compute_sparsity_is_no_schedule(schedule: Any) -> None:
    with pytest.raises(ValueError, match=r"no schedule.*compute_sparsity"):
        ScheduledPruning(schedule, target_sparsity=0.5)


@pytest.mark.parametrize("interval", ["batch", "", None])
def test_a_bad_interval_lists_the_allowed_ones(interval: Any) -> None:
    with pytest.raises(ValueError, match=rf"{interval!r}; allowed: step, epoch, percent"):
        ScheduledPruning(interval=interval)


def test_both_config_and_target_sparsity_are_refused() -> None:
    with pytest.raises(ValueError, match="both config and target_sparsity"):
        ScheduledPruning(config=FIRST_LAYER, target_sparsity=0.5)


@pytest.mark.parametrize("target", [-0.1, 1.1])
def test_a_target_sparsity_outside_0_to_1_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_sparsity"):
        ScheduledPruning(target_sparsity=target)


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy])
def test_sharded_weights_are_refused(strategy: type) -> None:
    # The strategy itself wants a GPU: only its type is looked at.
    trainer: Any = SimpleNamespace(strategy=strategy.__new__(strategy), ckpt_path=None)
    with pytest.raises(PruningError, match=rf"{strategy.__name__} shards.*allowed: .*ddp"):
        ScheduledPruning().setup(trainer, TinyModule(), "fit")


def test_nan_weights_end_the_training_and_are_named(tmp_path: Path) -> None:
    class Diverging(TinyModule):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            epochs.add(self.current_epoch)
            # In the last batch: another step would carry it into the first layer.
            if (self.current_epoch, batch_idx) == (1, 7):
                list(pruned_tensors(self))[1].original.data[0, 0] = torch.nan

    epochs: set[int] = set()
    with pytest.raises(DivergedWeightError, match=r"NaN in 'second\.weight'") as caught:
        make_trainer(tmp_path, ScheduledPruning(), max_epochs=4).fit(Diverging(), loader())
    assert caught.value.names == ["second.weight"]
    assert epochs == {0, 1}


class StopAt(pl.Callback):
    """Ends the training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        trainer.should_stop = trainer.global_step == self.step


@pytest.mark.parametrize(
    ("interval", "total", "reading"), [("step", 16, 5), ("epoch", 3, 1), ("percent", 100, 20)]
)
def test_a_training_that_ends_before_the_target_warns_with_the_number(
    tmp_path: Path, interval: Any, total: int, reading: int
) -> None:
    pruning = ScheduledPruning(linear_ramp(total), target_sparsity=0.5, interval=interval)
    trainer = make_trainer(tmp_path, pruning, StopAt(5), max_epochs=3)
    ended = rf"ended at {interval} {reading} .*, which ends at {total}, below the target"
    with pytest.warns(UserWarning, match=rf"{ended} .*: 0\.\d{{4}} of 0\.5000"):
        trainer.fit(TinyModule(), loader())


class Operations(TorchDispatchMode):
    """Counts the operations that run inside it, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


# What makes the host wait for a device: reading a number, or a size that depends on values.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim"}


class WatchedPruning(ScheduledPruning):
    """Keeps, for each batch, the operations of its hook."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watched: list[Counter[str]] = []

    def on_train_batch_end(self, *args: Any) -> None:
        with Operations() as operations:
            super().on_train_batch_end(*args)
        self.watched.append(operations.names)


@pytest.mark.parametrize("make", [TinyModule, lambda: ManualModule(lambda batch: (0, 1))])
def test_only_a_step_that_makes_masks_waits_for_the_device_and_once(
    tmp_path: Path, make: Any
) -> None:
    pruning = WatchedPruning(linear_ramp(16, update_frequency=4), target_sparsity=0.5)
    make_trainer(tmp_path, pruning).fit(make(), loader())
    changes = ["copy_" in names for names in pruning.watched]
    # Of the updates at 0, 4, 8, 12 the first one asks for 0, and the last for the target.
    assert [step for step, changed in enumerate(changes, 1) if changed] == [4, 8, 12]
    # One number says whether a weight of all those masks is NaN.
    waits = [sum(names[name] for name in WAITING) for names in pruning.watched]
    assert waits == [1 if step in (4, 8, 12) else 0 for step in range(1, 17)]
