"""What the callbacks say when a fit begins and is not all that was meant."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import PreparationWarning
from lightning_callbacks import ScheduledPruning, TargetGate
from lightning_callbacks.target_sparsity import NothingAtTargetWarning
from tests.helpers.gating import checkpoint, fit, sparsity_of, stopping
from tests.helpers.lightning import (
    ScriptedModule,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)


def test_until_when_the_apps_callbacks_wait_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ramp = PolynomialDecaySchedule(begin_step=10, total_iters=60)
    best, stop = checkpoint(tmp_path), stopping(patience=3)
    pruning = ScheduledPruning(ramp, 0.5, interval="percent")
    with caplog.at_level(logging.INFO):
        fit(tmp_path, best, stop, pruning, TargetGate(), module=ScriptedModule([0.5] * 4))
    (line,) = [text for text in caplog.messages if text.startswith("until the target")]
    assert "at percent 70 of the schedule" in line
    assert ", EarlyStopping(monitor='val') and ModelCheckpoint(monitor='val') wait: " in line
    assert line.endswith("; save_last=True keeps a file")


def test_nothing_is_said_where_nothing_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        at_once = ScheduledPruning(None, 0.5)
        fit(tmp_path, checkpoint(tmp_path), at_once, TargetGate(), module=ScriptedModule([0.5] * 4))
        trainer = make_trainer(tmp_path, ScheduledPruning(linear_ramp(4), 0.5), TargetGate())
        trainer.fit(TinyModule(), loader(8))
    assert not [text for text in caplog.messages if text.startswith("until the target")]


class WithTeacher(TinyModule):
    """A teacher that no optimizer has, and that nobody has frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(8, 4)

    def configure_optimizers(self) -> Any:
        parts = [*self.first.parameters(), *self.second.parameters()]
        return torch.optim.SGD(parts, lr=0.1)


def test_pruned_weights_that_no_optimizer_has_are_named(tmp_path: Path) -> None:
    told = r"no optimizer has 1 of the pruned weights \('teacher.weight'\)"
    with pytest.warns(PreparationWarning, match=told):
        make_trainer(tmp_path, ScheduledPruning(None, 0.5)).fit(WithTeacher(), loader(8))
    module = WithTeacher()
    module.teacher.requires_grad_(False)
    with pytest.warns(PreparationWarning, match="frozen"):
        make_trainer(tmp_path, ScheduledPruning(None, 0.5)).fit(module, loader(8))
    assert (zeros(module.teacher.weight), zeros(module.first.weight)) == (0.0, 0.5)


def test_a_frozen_weight_that_a_config_names_is_meant(tmp_path: Path) -> None:
    module = WithTeacher()
    module.teacher.requires_grad_(False)
    half = {"op_state_spec": {"weight": {"target_sparsity": 0.5}}}
    pruning = ScheduledPruning(config={"module_name_configs": {"teacher": half}})
    make_trainer(tmp_path, pruning).fit(module, loader(8))
    assert zeros(module.teacher.weight) == 0.5


@pytest.mark.parametrize("target", [0.75, 0.25])
def test_going_on_to_another_target_behind_all_hundredths_is_said(
    tmp_path: Path, target: float
) -> None:
    def trainer(to: float, epochs: int) -> Any:
        pruning = ScheduledPruning(linear_ramp(50), to, interval="percent")
        return make_trainer(tmp_path, pruning, max_epochs=epochs)

    first, half = trainer(0.5, 1), tmp_path / "half.ckpt"
    first.fit(TinyModule(), loader(8))
    first.save_checkpoint(half)
    told = f"at percent 100, with a sparsity of 0.5000, and the target is {target}"
    with pytest.warns(UserWarning, match=told), pytest.warns(UserWarning, match="training ended"):
        trainer(target, 2).fit(TinyModule(), loader(8), ckpt_path=half)
    trainer(0.5, 2).fit(TinyModule(), loader(8), ckpt_path=half)


def test_going_on_to_another_target_in_steps_goes_there(tmp_path: Path) -> None:
    first = make_trainer(tmp_path, ScheduledPruning(linear_ramp(4), 0.5), max_epochs=1)
    first.fit(TinyModule(), loader(8))
    first.save_checkpoint(tmp_path / "half.ckpt")
    module = TinyModule()
    other = make_trainer(tmp_path, ScheduledPruning(linear_ramp(4), 0.75), max_epochs=2)
    other.fit(module, loader(8), ckpt_path=tmp_path / "half.ckpt")
    assert zeros(module.first.weight) == 0.75


class LogsSteps(TinyModule):
    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss


@pytest.mark.parametrize("monitor", ["loss_step", "loss_epoch"])
def test_a_metric_of_single_steps_counts_within_the_epoch_of_the_ramp(
    tmp_path: Path, monitor: str
) -> None:
    settings: dict[str, Any] = {"mode": "min", "save_top_k": -1, "every_n_train_steps": 1}
    best = checkpoint(tmp_path, monitor=monitor, **settings)
    callbacks = [ScheduledPruning(linear_ramp(4), 0.5), TargetGate(), best]
    trainer = make_trainer(tmp_path, *callbacks, max_epochs=1, enable_checkpointing=True)
    if monitor == "loss_step":
        trainer.fit(LogsSteps(), loader(8))
        # From the step on that reaches the target.
        files = list((tmp_path / "kept").glob("*.ckpt"))
        assert len(files) >= 4
        assert {sparsity_of(file) for file in files} == {0.5}
    else:
        with pytest.warns(NothingAtTargetWarning, match="before the last of them"):
            trainer.fit(LogsSteps(), loader(8))
