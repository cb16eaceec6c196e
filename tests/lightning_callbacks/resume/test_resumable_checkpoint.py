"""When checkpoints are written, what they leave alone, and what is told."""

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import CombinedLoader

from lightning_callbacks import ResumableCheckpoint, ScheduledPruning, SparsityMonitor
from lightning_callbacks._resume.checkpoint_files import checkpoint_files
from lightning_callbacks._resume.dataloader_state import InexactResumeWarning
from lightning_callbacks.resumable_checkpoint import CheckpointNotWrittenWarning
from tests.helpers.exactness import (
    BATCHES,
    RESUMING_WARNINGS,
    PairsModule,
    Training,
    at_step,
    ours,
    plain,
    stateful,
)
from tests.helpers.lightning import TinyModule, loader, make_trainer

pytestmark = [
    *RESUMING_WARNINGS,
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
]


class Listing(pl.Callback):
    """Keeps the steps that there are files of, when each batch begins and in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[list[int]] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.steps.append([file.step for file in checkpoint_files(self.folder)][::-1])

    def on_train_end(self, *args: Any) -> None:
        self.on_train_batch_start()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [[], [], [], [3], [3], [3], [3, 6]]),
        ({"every_n_epochs": 2}, [[], [], [], [], [], [], [6]]),
        ({"every_n_epochs": None}, [[]] * 7),
        (
            {"every_n_epochs": None, "every_n_steps": 2},
            [[], [], [2], [2], [2, 4], [2, 4], [4, 6]],
        ),
        (
            {"every_n_steps": 2, "keep": 3},
            [[], [], [2], [2, 3], [2, 3, 4], [2, 3, 4], [3, 4, 6]],
        ),
        ({"every_n_steps": 1, "keep": 1}, [[], [1], [2], [3], [4], [5], [6]]),
    ],
    ids=str,
)
def test_when_files_are_written(
    tmp_path: Path, given: dict[str, Any], expected: list[list[int]]
) -> None:
    listing = Listing(tmp_path)
    make_trainer(tmp_path, listing, ResumableCheckpoint(tmp_path, **given)).fit(
        TinyModule(), loader(3)
    )
    assert listing.steps == expected


def test_steps_are_counted_and_not_batches(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    resumable = ResumableCheckpoint(tmp_path, every_n_steps=1, every_n_epochs=None, keep=1)
    trainer = make_trainer(tmp_path, listing, resumable, accumulate_grad_batches=2, max_epochs=1)
    trainer.fit(TinyModule(), loader(5))
    assert listing.steps == [[], [], [1], [1], [2], [3]]


@pytest.mark.parametrize("name", ["every_n_steps", "every_n_epochs", "keep"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_below_one_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; allowed: 1 or more"):
        ResumableCheckpoint("r", **{name: value})


@pytest.mark.parametrize(
    ("data", "make", "step", "told"),
    [
        (partial(plain, num_workers=1), None, 2, "keeps no state .* what its workers draw"),
        (plain, None, 2, None),
        (plain, None, BATCHES, None),
        (ours, None, 2, None),
        (stateful, None, 2, None),
        (
            lambda: CombinedLoader({"one": ours(), "other": plain()}),
            PairsModule,
            2,
            "some of several data loaders keep no state",
        ),
    ],
)
def test_what_is_told_of_a_loader(
    tmp_path: Path,
    data: Callable[[], Any],
    make: Any,
    step: int,
    told: str | None,
    recwarn: pytest.WarningsRecorder,
) -> None:
    training = Training(tmp_path, data, **({"make": make} if make else {}))
    training.run("stopped", at_step(step))
    recwarn.clear()
    if told is None:
        training.run("stopped", resume=True)
        assert [one for one in recwarn if one.category is InexactResumeWarning] == []
    else:
        with pytest.warns(InexactResumeWarning, match=f"in the middle of an epoch: .*{told}"):
            training.run("stopped", resume=True)


def tiny_training(root: Path, *callbacks: pl.Callback, **given: Any) -> Any:
    torch.manual_seed(0)
    module = TinyModule()
    make_trainer(root, *callbacks, max_epochs=2).fit(module, loader(3), **given)
    return module


def equal(one: TinyModule, other: TinyModule) -> bool:
    return torch.equal(one.first.weight, other.first.weight)


def test_a_folder_that_cannot_be_made_is_told_and_the_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    resumable = ResumableCheckpoint(tmp_path / "file" / "r")
    with pytest.warns(
        CheckpointNotWrittenWarning, match="no checkpoint of step [36] .*the run goes"
    ):
        module = tiny_training(tmp_path, resumable)
    assert equal(module, tiny_training(tmp_path))
    assert resumable.newest() is None


def test_a_disk_that_fills_is_told_and_earlier_checkpoints_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FillTheDisk(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.current_epoch == 1:
                monkeypatch.setattr("os.fsync", self.full)

        def full(self, descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    resumable = ResumableCheckpoint(tmp_path)
    with pytest.warns(CheckpointNotWrittenWarning, match="step 6 .*No space left on device; the"):
        tiny_training(tmp_path, resumable, FillTheDisk())
    monkeypatch.undo()
    assert [file.step for file in checkpoint_files(tmp_path)] == [3]
    assert resumable.newest() is not None


@pytest.mark.parametrize("name", ["it's a=b, ü", "[a]*?", "a%20b", "{now} $HOME ~", "-rf", "a\nb"])
def test_folders_are_taken_literally(tmp_path: Path, name: str) -> None:
    resumable = ResumableCheckpoint(tmp_path / name)
    whole = tiny_training(tmp_path, resumable)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    path = resumable.newest()
    assert path is not None
    assert equal(whole, tiny_training(tmp_path, ResumableCheckpoint(tmp_path), ckpt_path=path))


def test_checkpoints_of_others_hold_nothing_of_ours(tmp_path: Path) -> None:
    theirs = ModelCheckpoint(tmp_path / "theirs", every_n_train_steps=1, save_top_k=-1)
    resumable = ResumableCheckpoint(tmp_path / "ours", every_n_steps=1)
    trainer = make_trainer(tmp_path, theirs, resumable, enable_checkpointing=True)
    trainer.fit(TinyModule(), loader(3))
    for path in (tmp_path / "theirs").iterdir():
        saved = torch.load(path, weights_only=False)
        assert resumable.state_key not in saved["callbacks"]
    path = resumable.newest()
    assert path is not None
    ours = torch.load(path, weights_only=False)
    assert ours["callbacks"][resumable.state_key]["boundary"] == "end"


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_of_lightning_loads_without_our_state(tmp_path: Path) -> None:
    theirs = ModelCheckpoint(tmp_path / "theirs", save_last=True)
    make_trainer(tmp_path, theirs, enable_checkpointing=True, max_epochs=1).fit(
        TinyModule(), loader(3)
    )
    resumable = ResumableCheckpoint(tmp_path / "ours")
    tiny_training(tmp_path, resumable, ckpt_path=tmp_path / "theirs" / "last.ckpt")
    # At 4, as a loader that keeps a state says where it is after its first batch.
    assert [file.step for file in checkpoint_files(tmp_path / "ours")] == [6, 4]


class Order(pl.Callback):
    """Keeps whether a checkpoint was there before its own hook ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[int] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        self.seen.append(len(checkpoint_files(self.folder)))


def test_it_runs_before_all_other_callbacks(tmp_path: Path) -> None:
    order = Order(tmp_path)
    trainer = make_trainer(tmp_path, order, ResumableCheckpoint(tmp_path))
    trainer.fit(TinyModule(), loader(3))
    assert order.seen == [0, 1]
    kinds = [type(callback) for callback in trainer.callbacks]
    assert kinds.index(ResumableCheckpoint) == 0
    assert kinds.count(Order) == 1


def hooked(trainer: pl.Trainer) -> list[str]:
    loops = (trainer.fit_loop, trainer.fit_loop.epoch_loop)
    return [name for loop in loops for name in vars(loop) if callable(getattr(type(loop), name, 0))]


class Failing(pl.Callback):
    """Ends the training, and keeps what was hooked at that time."""

    hooked: list[str]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.hooked = hooked(trainer)
        raise RuntimeError("failed")


def test_no_hook_stays_on_the_loops(tmp_path: Path) -> None:
    failing = Failing()
    trainer = make_trainer(tmp_path, failing, ResumableCheckpoint(tmp_path))
    with pytest.raises(RuntimeError, match="failed"):
        trainer.fit(TinyModule(), loader(3))
    assert len(failing.hooked) >= 3
    assert hooked(trainer) == []
    trainer.callbacks.remove(failing)
    trainer.fit(TinyModule(), loader(3))
    assert hooked(trainer) == []


def test_a_trainer_and_its_callback_are_used_again(tmp_path: Path) -> None:
    resumable = ResumableCheckpoint(tmp_path, every_n_steps=2)
    trainer = make_trainer(tmp_path, resumable, max_epochs=2)
    torch.manual_seed(0)
    module = TinyModule()
    trainer.fit(module, loader(3))
    path = resumable.newest()
    trainer.fit(TinyModule(), loader(3), ckpt_path=path)
    assert trainer.global_step == 6
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, loader(3))
    assert [file.step for file in checkpoint_files(tmp_path)] == [12, 10]
    assert resumable.seconds > 0


def test_another_training_counts_its_steps_anew(tmp_path: Path) -> None:
    resumable = ResumableCheckpoint(tmp_path, every_n_steps=2, every_n_epochs=None)
    listings = []
    for _ in range(2):
        for file in checkpoint_files(tmp_path):
            file.path.unlink()
        listings.append(Listing(tmp_path))
        tiny_training(tmp_path, listings[-1], resumable)
    assert listings[0].steps == listings[1].steps == [[], [], [2], [2], [2, 4], [2, 4], [4, 6]]


def test_wall_time_is_that_of_all_processes(tmp_path: Path) -> None:
    first = ResumableCheckpoint(tmp_path)
    tiny_training(tmp_path, first)
    path = first.newest()
    assert path is not None
    saved = torch.load(path, weights_only=False)["callbacks"][first.state_key]["seconds"]
    second = ResumableCheckpoint(tmp_path)
    tiny_training(tmp_path, second, ckpt_path=path)
    assert second.seconds_before == saved > 0
    assert second.seconds > saved


def crash_at(step: int) -> Callable[[], list[pl.Callback]]:
    class Crash(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == step:
                raise RuntimeError("crashed")

    return lambda: [Crash()]


@pytest.mark.parametrize("every", [2, 3, BATCHES])
def test_a_crash_goes_on_from_the_last_checkpoint(tmp_path: Path, every: int) -> None:
    training = partial(Training, tmp_path, checkpoint={"every_n_steps": every})
    whole = training().run("whole")
    with pytest.raises(RuntimeError, match="crashed"):
        training(callbacks=crash_at(BATCHES + 3)).run("stopped")
    # What was logged and counted after the checkpoint is gone, and comes again once.
    assert training().run("stopped", resume=True, seed=1) == whole


def test_later_checkpoints_of_another_future_are_removed(tmp_path: Path) -> None:
    resumable = ResumableCheckpoint(tmp_path, every_n_steps=1, keep=9)
    tiny_training(tmp_path, resumable)
    early = checkpoint_files(tmp_path)[-2]
    assert early.step == 2
    with pytest.raises(RuntimeError, match="crashed"):
        tiny_training(tmp_path, ResumableCheckpoint(tmp_path), *crash_at(3)(), ckpt_path=early.path)
    assert [file.step for file in checkpoint_files(tmp_path)] == [2, 1]


def test_rows_of_an_earlier_training_stay_in_the_sparsity_file(tmp_path: Path) -> None:
    def run(folder: str, **given: Any) -> str:
        tiny_training(
            tmp_path,
            ScheduledPruning(target_sparsity=0.5),
            SparsityMonitor(every_n_steps=1),
            ResumableCheckpoint(tmp_path / folder, every_n_steps=2),
            **given,
        )
        return (tmp_path / "sparsity.csv").read_text()

    once = run("first")
    twice = run("second")
    assert twice.startswith(once)
    assert len(twice) > len(once)
    early = checkpoint_files(tmp_path / "second")[-1]
    assert early.step == 4
    assert run("second", ckpt_path=early.path) == twice


def test_a_reloaded_loader_with_a_state_has_checkpoints_at_the_ends_of_epochs(
    tmp_path: Path,
) -> None:
    resumable = ResumableCheckpoint(tmp_path, keep=9)
    trainer = make_trainer(tmp_path, resumable, reload_dataloaders_every_n_epochs=1, max_epochs=3)
    trainer.fit(TinyModule(), loader(3))
    # A batch later: nobody knows where a loader is that has given nothing yet.
    assert [file.step for file in checkpoint_files(tmp_path)] == [9, 7, 4]
