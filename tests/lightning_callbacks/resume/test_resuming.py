"""A run that is taken up from a checkpoint ends as the uninterrupted one does."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import (
    FIRST_LAYER,
    ManualModule,
    RecordingSchedule,
    SaveAt,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)

EPOCHS, BATCHES = 3, 8


class ValidatedModule(TinyModule):
    """A module whose validation leaves no trace."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.loss(batch)


@dataclass
class Run:
    """How a run is set up; each call trains a new module with new callbacks."""

    root: Path
    ramp: dict[str, Any]
    interval: Any = "step"
    settings: dict[str, Any] = field(default_factory=dict)
    make: Any = TinyModule
    config: Any = field(default_factory=lambda: FIRST_LAYER)

    def train(self, *callbacks: pl.Callback, seed: int = 0, **given: Any) -> tuple[Any, list[int]]:
        torch.manual_seed(seed)
        module, schedule = self.make(), RecordingSchedule(linear_ramp(**self.ramp))
        pruning = ScheduledPruning(schedule, config=self.config, interval=self.interval)
        trainer = make_trainer(
            self.root,
            pruning,
            *callbacks,
            max_epochs=EPOCHS,
            num_sanity_val_steps=0,
            **self.settings,
        )
        validation = loader(1) if self.make is ValidatedModule else None
        trainer.fit(module, loader(BATCHES), validation, **given)
        return module, schedule.asked


def assert_resumes_exactly(run: Run, step: int, clock: int, hook: str = "batch") -> None:
    """Compare with the uninterrupted run; ``clock`` is the schedule's at the checkpoint."""
    path = run.root / "cut.ckpt"
    whole, asked = run.train(SaveAt(path, step, hook))
    # Another start, so that everything has to come from the checkpoint.
    resumed, asked_again = run.train(seed=1, ckpt_path=path)
    pruned = [weight for weight in (whole.first.weight, whole.second.weight) if zeros(weight)]
    total = sum(weight.numel() for weight in pruned)
    assert abs(sum(zeros(weight) * weight.numel() for weight in pruned) - total / 2) <= 1
    assert asked_again == list(range(clock + 1, asked[-1] + 1))
    assert asked == list(range(asked[-1] + 1))
    theirs, ours = whole.state_dict(), resumed.state_dict()
    assert list(theirs) == list(ours)
    assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []
    assert moments(whole) == moments(resumed)
    assert masks(whole) == masks(resumed)


def masks(module: pl.LightningModule) -> Any:
    """Return masks, dense values and clock, as numbers."""
    (state,) = [
        callback.state_dict()
        for callback in module.trainer.callbacks
        if isinstance(callback, ScheduledPruning)
    ]
    return json.dumps(state, default=lambda tensor: tensor.tolist())


def moments(module: pl.LightningModule) -> list[Any]:
    """Return all that the optimizers keep, as numbers."""
    optimizers = module.trainer.optimizers
    states = [state for each in optimizers for state in each.state_dict()["state"].values()]
    return [
        {
            name: value.tolist() if isinstance(value, Tensor) else value
            for name, value in each.items()
        }
        for each in states
    ]


@pytest.mark.parametrize("step", [1, 13, 23])
def test_in_the_middle_of_an_epoch_and_of_the_ramp(tmp_path: Path, step: int) -> None:
    assert_resumes_exactly(Run(tmp_path, {"total_iters": 18}), step, clock=step)


@pytest.mark.parametrize("step", [8, 16])
def test_at_the_end_of_an_epoch(tmp_path: Path, step: int) -> None:
    assert_resumes_exactly(Run(tmp_path, {"total_iters": 20}), step, clock=step, hook="epoch")


@pytest.mark.parametrize("step", [13, 14])
def test_between_two_updates(tmp_path: Path, step: int) -> None:
    ramp = {"total_iters": 20, "begin_step": 2, "update_frequency": 5}
    assert_resumes_exactly(Run(tmp_path, ramp), step, clock=step)


@pytest.mark.parametrize(("step", "clock", "hook"), [(13, 1, "batch"), (16, 2, "epoch")])
def test_when_epochs_are_counted(tmp_path: Path, step: int, clock: int, hook: str) -> None:
    run = Run(tmp_path, {"total_iters": 3}, interval="epoch")
    assert_resumes_exactly(run, step, clock, hook)


@pytest.mark.parametrize(("step", "clock"), [(5, 20), (13, 54)])
def test_when_hundredths_are_counted(tmp_path: Path, step: int, clock: int) -> None:
    run = Run(tmp_path, {"total_iters": 100}, interval="percent")
    assert_resumes_exactly(run, step, clock)


@pytest.mark.parametrize("step", [3, 6])
def test_with_accumulated_gradients(tmp_path: Path, step: int) -> None:
    run = Run(tmp_path, {"total_iters": 9}, settings={"accumulate_grad_batches": 2})
    assert_resumes_exactly(run, step, clock=step)


@pytest.mark.parametrize("step", [5, 13])
def test_with_two_optimizers(tmp_path: Path, step: int) -> None:
    run = Run(tmp_path, {"total_iters": 18}, make=lambda: ManualModule(lambda batch: (0, 1)))
    # Lightning's own count is that of both.
    assert_resumes_exactly(run, 2 * step, clock=step)


def decayed_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.1)


def decayed_adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1)


@pytest.mark.parametrize("step", [5, 13])
@pytest.mark.parametrize("optimizer", [decayed_sgd, decayed_adamw])
def test_with_weight_decay(tmp_path: Path, optimizer: Any, step: int) -> None:
    run = Run(tmp_path, {"total_iters": 18}, make=lambda: TinyModule(optimizer))
    assert_resumes_exactly(run, step, clock=step)


@pytest.mark.parametrize(
    ("criterion", "allocation", "step"),
    [
        ("default", "global", 5),
        ("default", "erdos_renyi", 13),
        ("random", "uniform", 5),
        ("random", "global", 13),
        ("taylor", "erdos_renyi", 5),
        ("taylor", "uniform", 13),
    ],
)
def test_with_criteria_and_allocations(
    tmp_path: Path, criterion: str, allocation: str, step: int
) -> None:
    spec = {"target_sparsity": 0.5, "pruning_algo": criterion}
    config = {
        "global_config": {"op_state_spec": {"*": spec}},
        "allocation": allocation,
        "allow_regrowth": criterion != "default",
    }
    ramp = {"total_iters": 18, "update_frequency": 3}
    run = Run(tmp_path, ramp, config=config, make=lambda: TinyModule(decayed_sgd))
    assert_resumes_exactly(run, step, clock=step)


@pytest.mark.parametrize(("interval", "clock"), [("step", 4), ("epoch", 0)])
def test_at_a_validation_within_an_epoch(tmp_path: Path, interval: Any, clock: int) -> None:
    ramp = {"total_iters": 18 if interval == "step" else 3}
    settings = {"val_check_interval": 0.5}
    run = Run(tmp_path, ramp, interval, settings, make=ValidatedModule)
    assert_resumes_exactly(run, 4, clock, hook="validation")


@pytest.mark.parametrize(("interval", "clock"), [("step", 8), ("epoch", 0)])
def test_at_the_validation_that_ends_an_epoch(tmp_path: Path, interval: Any, clock: int) -> None:
    ramp = {"total_iters": 18 if interval == "step" else 3}
    run = Run(tmp_path, ramp, interval, make=ValidatedModule)
    assert_resumes_exactly(run, 8, clock, hook="validation")


def test_a_run_that_is_cut_twice(tmp_path: Path) -> None:
    run = Run(tmp_path, {"total_iters": 20})
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    whole, _ = run.train(SaveAt(first, 5, "batch"))
    run.train(SaveAt(second, 13, "batch"), seed=1, ckpt_path=first)
    resumed, asked = run.train(seed=2, ckpt_path=second)
    assert asked == list(range(14, 25))
    assert torch.equal(whole.first.weight, resumed.first.weight)
