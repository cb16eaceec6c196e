"""What callbacks keep, in files and in memory, goes with the warm-up that a run takes."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from tests.helpers.quick_runs import QUICK_FOR_THEIRS
from tests.helpers.same_runs import differences
from tests.helpers.warmups import OTHER, STEPS, Job, job

__all__ = ["job"]

slow = pytest.mark.slow

# A file that another run has written holds what that one knew of its own callbacks.
THEN = {"mine/epoch=0.ckpt: callbacks"}

KEEPING = (
    "+callbacks.keeping={_target_:pytorch_lightning.callbacks.ModelCheckpoint,"
    "dirpath:${paths.run_dir}/%s,filename:'{epoch}',monitor:val/loss,mode:max,save_top_k:%d,"
    "save_last:%s}"
)
AVERAGE = (
    "+callbacks.average={_target_:pytorch_lightning.callbacks.EMAWeightAveraging,"
    "decay:0.9,update_every_n_steps:1}"
)


class Odd(pl.Callback):
    """Keeps a state that is no dict, as Lightning allows."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1

    def state_dict(self) -> Any:
        return self.batches

    def load_state_dict(self, state: Any) -> None:
        self.batches = state


def assert_shared(job: Job, root: Path, *common: str, **given: Any) -> None:
    job("warmup", *STEPS, *common, **given)
    taken = job("taker", *OTHER, *common, **given)
    job("alone", *OTHER, *common, **given)
    assert taken["warmup"]["seconds_saved"] > 0
    assert set(differences(root / "taker", root / "alone")) <= THEN


def test_files_that_were_kept_during_the_warm_up_are_there(job: Job, tmp_path: Path) -> None:
    # The loss goes down: the first epochs are what is kept.
    assert_shared(job, tmp_path, KEEPING % ("mine", 2, "true"))
    names = {path.name for path in (tmp_path / "taker" / "mine").iterdir()}
    assert names == {"epoch=0.ckpt", "epoch=1.ckpt", "last.ckpt"}


def test_a_last_checkpoint_of_the_warm_up_does_not_stay_the_last(job: Job, tmp_path: Path) -> None:
    # Written after the second epoch of three, and anew at the end: the warm-up ends in between.
    late = ["begin_step=14", "+callbacks.last_checkpoint.every_n_epochs=2"]
    ramps = ["total_iters=2"], ["total_iters=4", "target_sparsity=0.5"]
    never = "+callbacks.best_checkpoint.every_n_epochs=9"
    job("warmup", *late, never, *ramps[0])
    taken = job("taker", *late, never, *ramps[1])
    job("alone", *late, never, *ramps[1])
    assert taken["warmup"]["steps"] == 14
    assert taken["checkpoints"] == {"best": None, "last": "checkpoints/last.ckpt"}
    assert differences(tmp_path / "taker", tmp_path / "alone") == []
    last = torch.load(tmp_path / "taker" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 18


@slow
def test_a_sweep_may_be_reached_through_a_link(job: Job, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    runs = "warmup", "taker", "alone"
    for name in runs:
        (tmp_path / "disk" / name).mkdir()
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    common = [KEEPING % ("mine", 2, "false")]
    job("warmup", *STEPS, *common)
    assert job("taker", *OTHER, *common)["warmup"]["seconds_saved"] > 0
    job("alone", *OTHER, *common)
    disk = tmp_path / "disk"
    kept = {name: {path.name for path in (disk / name / "mine").iterdir()} for name in runs}
    assert kept["taker"] == kept["alone"] != set()


@slow
@pytest.mark.filterwarnings("ignore:.*AveragedModel")
def test_averages_of_the_weights_go_on(job: Job, tmp_path: Path) -> None:
    assert_shared(job, tmp_path, AVERAGE)


def test_a_callback_may_keep_any_state(job: Job, tmp_path: Path) -> None:
    assert_shared(job, tmp_path, f"+callbacks.odd={{_target_:{__name__}.Odd}}")


@slow
@pytest.mark.filterwarnings("ignore:resumed in the middle of an epoch")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_modules_and_data_of_ones_own_share_as_well(
    job: Job, tmp_path: Path, user_module: str
) -> None:
    base = [item for item in QUICK_FOR_THEIRS if not item.startswith(("data.", "total_iters"))]
    theirs = [
        f"model._target_={user_module}.Lit",
        f"data._target_={user_module}.Data",
        "objective.name=val/score",
    ]
    job("warmup", "begin_step=5", "total_iters=3", *theirs, base=base)
    taken = job("taker", "begin_step=5", "total_iters=6", *theirs, base=base)
    job("alone", "begin_step=5", "total_iters=6", *theirs, base=base)
    assert taken["warmup"]["steps"] == 5
    assert differences(tmp_path / "taker", tmp_path / "alone") == []
