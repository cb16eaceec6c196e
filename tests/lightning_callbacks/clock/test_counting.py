"""The schedule's clock: optimizer steps finished, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn

from coreai_opt.pruning.scheduling.optimizer_steps import OptimizerSteps
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import (
    FIRST_LAYER,
    ManualModule,
    OverflowModule,
    RecordingSchedule,
    Tape,
    TinyModule,
    float16,
    loader,
    make_trainer,
    steps_asked,
    tape_of,
    zeros,
)


def hooks_of(trainer: pl.Trainer) -> list[Any]:
    return [hook for opt in trainer.optimizers for hook in opt._optimizer_step_post_hooks.values()]


def test_every_step_is_asked_once_beginning_with_0(tmp_path: Path) -> None:
    assert steps_asked(tmp_path, TinyModule()) == list(range(17))


def test_step_0_is_asked_before_the_first_batch(tmp_path: Path) -> None:
    class Probe(TinyModule):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            seen.append(list(schedule.asked))
            return super().training_step(batch, batch_idx)

    seen: list[list[int]] = []
    schedule = RecordingSchedule()
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER)
    make_trainer(tmp_path, pruning).fit(Probe(), loader())
    assert seen[:3] == [[0], [0, 1], [0, 1, 2]]


@pytest.mark.parametrize(
    ("accumulate", "batches", "steps"),
    [(1, 10, 20), (4, 8, 4), (4, 10, 6), (16, 10, 2)],
    ids=["none", "even", "last incomplete", "more than an epoch"],
)
def test_accumulated_batches_are_one_step(
    tmp_path: Path, accumulate: int, batches: int, steps: int
) -> None:
    asked = steps_asked(tmp_path, TinyModule(), batches=batches, accumulate_grad_batches=accumulate)
    assert asked == list(range(steps + 1))


def test_accumulation_that_changes_between_epochs(tmp_path: Path) -> None:
    changing = GradientAccumulationScheduler({0: 4, 1: 1})
    assert steps_asked(tmp_path, TinyModule(), changing) == list(range(2 + 8 + 1))


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.01),
    "fused sgd": lambda parameters: torch.optim.SGD(parameters, 0.01, fused=True),
    "fused adam": lambda parameters: torch.optim.Adam(parameters, 0.001, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_scaler_that_skips_nothing_counts_every_step(tmp_path: Path, name: str) -> None:
    module = TinyModule(OPTIMIZERS[name])
    tape = tape_of(tmp_path, module, max_epochs=1, plugins=[float16()])
    assert tape == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_the_scaler_skips_does_not_count(tmp_path: Path, name: str) -> None:
    module = OverflowModule({0, 3, 4}, optimizer=OPTIMIZERS[name])
    tape = tape_of(tmp_path, module, max_epochs=1, plugins=[float16()])
    assert tape == [0, 1, 2, 2, 2, 3, 4, 5]


class FusedOptimizer(torch.optim.Optimizer):
    """Leaves its weights alone; whether it would have moved them is for the scaler to say."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:
        """Make a step of nothing."""


@pytest.mark.parametrize(("found", "steps"), [(None, 1), (0.0, 1), (1.0, 0), (2.0, 0)])
def test_found_inf_decides_about_a_fused_step(found: float | None, steps: int) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = FusedOptimizer([weight])
    clock = OptimizerSteps()
    clock.attach([optimizer], [weight])
    if found is not None:
        optimizer.found_inf = torch.tensor([found])
    optimizer.step()
    assert clock.finished == steps


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (lambda batch: (0, 1), 16),
        (lambda batch: (0, 1) if batch % 2 else (1,), 8),
        (lambda batch: (0, 1) if batch % 4 else (0,), 16),
        (lambda batch: (batch % 2,), 8),
        (lambda batch: (1,) if batch < 6 else (0, 1), 4),
    ],
    ids=["both", "owner less often", "owner more often", "alternating", "owner begins late"],
)
def test_the_optimizer_of_the_pruned_weights_is_the_clock(
    tmp_path: Path, plan: Any, steps: int
) -> None:
    assert steps_asked(tmp_path, ManualModule(plan)) == list(range(steps + 1))


def test_two_optimizers_of_pruned_weights_are_not_added_up(tmp_path: Path) -> None:
    schedule = RecordingSchedule()
    pruning = ScheduledPruning(schedule, target_sparsity=0.5)
    make_trainer(tmp_path, pruning).fit(ManualModule(lambda batch: (0, 1)), loader())
    # Both layers have one schedule and one target, and it is asked once for both.
    assert schedule.asked == list(range(17))


def test_without_an_owner_every_optimizer_counts() -> None:
    weights = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizers = [torch.optim.SGD([weight], 0.1) for weight in weights[:2]]
    clock = OptimizerSteps()
    clock.attach(optimizers, [weights[2]])
    for optimizer in (*optimizers, optimizers[1]):
        optimizer.step()
    assert (clock.counts, clock.finished) == ([1, 2], 2)


def test_epochs_are_asked_when_they_have_finished(tmp_path: Path) -> None:
    schedule = RecordingSchedule()
    tape = Tape(schedule)
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER, interval="epoch")
    make_trainer(tmp_path, pruning, tape, max_epochs=3).fit(TinyModule(), loader(4))
    assert schedule.asked == [0, 1, 2, 3]
    assert tape.after_batch == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_learning_rate_schedule_changes_nothing(tmp_path: Path, interval: str) -> None:
    class Scheduled(TinyModule):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            decay = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
            return [optimizer], [{"scheduler": decay, "interval": interval}]

    assert steps_asked(tmp_path, Scheduled()) == list(range(17))


def test_the_hooks_are_on_the_optimizers_during_training_and_gone_after_it(tmp_path: Path) -> None:
    class Probe(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            during.append(len(hooks_of(trainer)))

    during: list[int] = []
    trainer = make_trainer(tmp_path, ScheduledPruning(), Probe())
    trainer.fit(TinyModule(), loader())
    assert during == [2] * 16
    assert hooks_of(trainer) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_hooks_are_gone_after_an_exception(tmp_path: Path, error: type) -> None:
    class Failing(TinyModule):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            if batch_idx == 3:
                raise error("on purpose")
            return super().training_step(batch, batch_idx)

    trainer = make_trainer(tmp_path, ScheduledPruning())
    # Lightning turns Ctrl-C into an exit.
    with pytest.raises((RuntimeError, SystemExit)):
        trainer.fit(Failing(), loader())
    assert trainer.optimizers
    assert hooks_of(trainer) == []


def test_the_count_of_another_number_of_optimizers_is_not_taken_over() -> None:
    clock = OptimizerSteps()
    clock.counts = [7, 7]
    clock.attach([torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)], [])
    assert clock.finished == 0


class TwoSteps(torch.optim.Optimizer):
    """Looks from a point nearby, as SAM does; the optimizer inside makes the step."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})
        self.inner = torch.optim.SGD(self.param_groups, lr=0.05, momentum=0.9)
        self.param_groups = self.inner.param_groups
        self.before: list[Tensor] = []

    @torch.no_grad()
    def first_step(self) -> None:
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self.before = [weight.clone() for weight in weights]
        for weight in weights:
            weight.add_(weight.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for weight, before in zip(weights, self.before, strict=True):
            weight.copy_(before)
        self.inner.step()
        self.zero_grad()

    def step(self, closure: Any = None) -> Any:
        loss = closure()
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()
        return loss


class Sharpness(TinyModule):
    """Steps the optimizer within its optimizer by hand."""

    def __init__(self) -> None:
        super().__init__(TwoSteps)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        self.manual_backward(self.loss(batch))
        optimizer.first_step()
        self.manual_backward(self.loss(batch))
        optimizer.second_step()


@pytest.mark.parametrize("make", [Sharpness, lambda: TinyModule(TwoSteps)], ids=["hand", "closure"])
def test_a_step_of_an_optimizer_within_another_counts_once(tmp_path: Path, make: Any) -> None:
    module = make()
    assert steps_asked(tmp_path, module) == list(range(17))
    assert zeros(module.first.weight) == 0.5
