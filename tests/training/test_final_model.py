"""What a run leaves is the model at its end, in whatever rhythm it validates."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from coreai_opt.training.run import run
from tests.helpers.quick_runs import QUICK

QuickRun = Callable[..., dict[str, Any]]


def more(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


BASE = [item for item in QUICK if not item.startswith("total_iters")]
STEPS = 18  # 3 epochs of 6


class Ends(pl.Callback):
    """Ends the training after a batch or after an epoch, counted from 0."""

    def __init__(self, batch: int | None = None, epoch: int | None = None) -> None:
        self.batch, self.epoch = batch, epoch

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.should_stop = True


EVERY = "trainer.check_val_every_n_epoch"
ENDS = f"{EVERY}=3 +callbacks.ends._target_={__name__}.Ends +callbacks.ends"
ONCE = "schedule=constant interval=epoch"


def zeros_of(directory: Path) -> float:
    weights = torch.load(directory / "weights.pt", weights_only=True).values()
    matrices = [weight for weight in weights if weight.dim() > 1]
    nonzero = sum(int(torch.count_nonzero(weight)) for weight in matrices)
    return 1 - nonzero / sum(weight.numel() for weight in matrices)


@pytest.mark.parametrize(
    ("overrides", "steps", "is_validated"),
    [
        (f"total_iters=17 {EVERY}=2", 18, True),
        more(f"total_iters=17 {EVERY}=5", 18, True),
        ("total_iters=17 +trainer.val_check_interval=4", 18, True),
        more(f"total_iters=17 +trainer.val_check_interval=11 {EVERY}=null", 18, True),
        more(f"schedule=constant begin_step=18 {EVERY}=2", 18, True),
        more("total_iters=9 trainer.max_steps=10", 10, True),
        more(f"total_iters=9 trainer.max_steps=10 {EVERY}=3", 10, True),
        more(f"interval=percent total_iters=100 {EVERY}=2", 18, True),
        more(f"{ONCE} begin_step=3", 18, False),
        more(f"{ONCE} begin_step=3 {EVERY}=2", 18, False),
        more(f"{ONCE} begin_step=2 trainer.max_steps=10", 10, False),
        more("total_iters=17 trainer.limit_val_batches=0 objective.name=train/loss", 18, False),
        more(f"total_iters=8 {ENDS}.batch=8", 9, True),
        (f"total_iters=9 {ENDS}.epoch=1", 12, False),
        more('total_iters=17 +trainer.val_check_interval="00:01:00:00"', 18, False),
    ],
)  # fmt: skip
def test_the_exported_model_and_the_last_checkpoint_are_of_the_last_step(
    compose_config: Any, tmp_path: Path, overrides: str, steps: int, is_validated: bool
) -> None:
    run(compose_config(*BASE, *overrides.split()))
    directory = tmp_path / "run"
    record = json.loads((directory / "result.json").read_text())
    assert record["training"]["steps"] == steps
    last = torch.load(directory / record["checkpoints"]["last"], weights_only=True)
    assert last["global_step"] == steps
    assert record["sparsity"]["below_target"] is False
    assert zeros_of(directory) == pytest.approx(0.9, abs=0.002)
    assert (record["checkpoints"]["best"] is not None) == bool(is_validated)
    with (directory / "metrics.csv").open() as file:
        validated = [int(row["step"]) for row in csv.DictReader(file) if row.get("val/accuracy")]
    if is_validated and "limit_val" not in overrides:
        assert validated[-1] == steps - 1  # Lightning counts from 0
        assert len(set(validated)) == len(validated)


def test_a_run_in_lightnings_own_rhythm_validates_as_often_as_before(
    compose_config: Any, tmp_path: Path
) -> None:
    run(compose_config(*QUICK))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/accuracy"]]
    assert len(rows) == 3


@pytest.mark.filterwarnings("ignore:the training ended at step 3 of the schedule")
def test_a_run_that_ends_below_its_target_says_so(
    compose_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(compose_config(*BASE, "total_iters=8", *f"{ENDS}.batch=2".split()))
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["sparsity"]["below_target"] is True
    achieved = 100 * record["sparsity"]["achieved"]
    assert f"sparsity {achieved:.2f} % is below the target, 90.00 %" in capsys.readouterr().out
