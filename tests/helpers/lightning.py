"""Tiny modules, data and schedules that the tests of the callbacks share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from coreai_opt.pruning.config import ConstantSparsitySchedule, PolynomialDecaySchedule
from lightning_callbacks import ScheduledPruning

# The first layer only, so that a schedule is asked once for each step.
FIRST_LAYER: dict[str, Any] = {
    "global_config": {"op_state_spec": {"*": {"target_sparsity": 0.5}}},
    "module_name_configs": {"second": None},
}

# Of 8 steps each; it gets worse from the start, as accuracy does while a ramp goes up.
WORSENING = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]


class TinyModule(pl.LightningModule):
    """Two linear layers of 128 and 64 weights, and SGD with momentum."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer] | None = None) -> None:
        super().__init__()
        self.make_optimizer = optimizer or momentum_sgd
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 4)

    def forward(self, features: Tensor) -> Tensor:
        return self.second(self.first(features).relu())

    def loss(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self(batch[0]).float(), batch[1].float())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


class EvaluatedModule(TinyModule):
    """The same, with the steps of the evaluating loops."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self(batch[0])


class ManualModule(TinyModule):
    """An optimizer for each layer; ``plan(batch_idx)`` names those that step, in order."""

    def __init__(self, plan: Callable[[int], tuple[int, ...]]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.plan = plan

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizers = self.optimizers()
        for index in self.plan(batch_idx):
            optimizers[index].zero_grad()
            self.manual_backward(self.loss(batch))
            optimizers[index].step()

    def configure_optimizers(self) -> Any:
        return [momentum_sgd(self.first.parameters()), momentum_sgd(self.second.parameters())]


class OverflowModule(TinyModule):
    """Its loss is infinite in the given batches of each epoch."""

    def __init__(self, overflows: set[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.overflows = overflows

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * torch.inf if batch_idx in self.overflows else loss


class ScriptedModule(TinyModule):
    """Its accuracy is written beforehand: a number for each epoch, or for each validation."""

    def __init__(self, scores: list[float] = WORSENING, by_validation: bool = False) -> None:
        super().__init__()
        self.scores, self.by_validation, self.validations = scores, by_validation, 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        score = self.scores[self.current_epoch]
        self.log("train", score, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        index = self.validations if self.by_validation else self.current_epoch
        self.log("val", self.scores[index])

    def on_validation_end(self) -> None:
        self.validations += not self.trainer.sanity_checking


class RecordingSchedule:
    """Keeps the steps that it is asked for; follows a ramp, or is at target at once."""

    def __init__(self, ramp: PolynomialDecaySchedule | None = None) -> None:
        self.ramp = ramp
        self.asked: list[int] = []

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        self.asked.append(step_count)
        if self.ramp is None:
            return target_sparsity
        return self.ramp.compute_sparsity(step_count, target_sparsity, prev_sparsity)


class Tape(pl.Callback):
    """Keeps the step that the schedule was last asked for, as it was after each batch."""

    def __init__(self, schedule: RecordingSchedule) -> None:
        self.schedule = schedule
        self.after_batch: list[int] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.after_batch.append(self.schedule.asked[-1])


class ResumableLoader(DataLoader):
    """Batches in fixed order; goes on after the last one given when it is resumed."""

    _given = 0
    _start = 0

    def __iter__(self) -> Iterator[Any]:
        start, self._start = self._start, 0
        for index, batch in enumerate(super().__iter__()):
            if index >= start:
                self._given = index + 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self._given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = state["given"]


def momentum_sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def loader(batches: int = 8, size: int = 4) -> ResumableLoader:
    """Return random data, always the same, in a fixed order."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batches * size, 8, generator=generator)
    targets = torch.randn(batches * size, 4, generator=generator)
    return ResumableLoader(TensorDataset(features, targets), batch_size=size)


def make_trainer(root: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    """Return a silent trainer on the CPU."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    fixed = {"accelerator": "cpu", "devices": 1, "enable_model_summary": False}
    if not ({"max_epochs", "max_steps"} & settings.keys()):
        settings["max_epochs"] = 2
    return pl.Trainer(
        callbacks=list(callbacks), default_root_dir=root, **{**quiet, **fixed, **settings}
    )


def steps_asked(
    root: Path,
    module: pl.LightningModule,
    *callbacks: pl.Callback,
    batches: int = 8,
    interval: Any = "step",
    **kw: Any,
) -> list[int]:
    """Return the steps that the schedule is asked for in a whole training."""
    schedule = RecordingSchedule()
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER, interval=interval)
    make_trainer(root, pruning, *callbacks, **kw).fit(module, loader(batches))
    return schedule.asked


def tape_of(
    root: Path, module: pl.LightningModule, *, batches: int = 8, interval: Any = "step", **kw: Any
) -> list[int]:
    """Return the last step that the schedule was asked for, after each batch."""
    tape = Tape(RecordingSchedule())
    pruning = ScheduledPruning(tape.schedule, config=FIRST_LAYER, interval=interval)
    make_trainer(root, pruning, tape, **kw).fit(module, loader(batches))
    return tape.after_batch


def zeros(weight: Tensor) -> float:
    """Return the share of zeros, counted."""
    return float((weight == 0).sum()) / weight.numel()


def linear_ramp(total_iters: int, **fields: Any) -> PolynomialDecaySchedule:
    return PolynomialDecaySchedule(total_iters=total_iters, power=1, **fields)


def pruned_from(step: int, interval: Any = "step") -> ScheduledPruning:
    """Be dense up to a step, and at target sparsity from there."""
    return ScheduledPruning(ConstantSparsitySchedule(begin_step=step), 0.5, interval=interval)


def float16() -> MixedPrecision:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return MixedPrecision(precision="16-mixed", device="cpu", scaler=scaler)


class SaveAt(pl.Callback):
    """Saves a checkpoint once, when a batch or an epoch has ended."""

    def __init__(self, path: Path, step: int, hook: str) -> None:
        self.path, self.step, self.hook = path, step, hook

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._save(trainer, "batch")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, "epoch")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, "validation")

    def _save(self, trainer: pl.Trainer, hook: str) -> None:
        if hook == self.hook and trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)
