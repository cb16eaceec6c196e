"""Training length: its progress, and the check that a ramp can end inside it."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from coreai_opt.pruning import InPlacePruner, PruningError
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.scheduling.ramps import Interval, RampTooLongError, ends_of
from lightning_callbacks._averaging import planned_epochs
from lightning_callbacks._lightning.root import pl, rank_zero_warn
from lightning_callbacks._lightning.roots import callbacks_of


class Beginning(NamedTuple):
    """Where in a training pruning begins: what Lightning has finished by then."""

    epochs: int = 0
    batches: int = 0  # of the epoch after those
    steps: int = 0


FIRST_STEP = Beginning()


class _Length(NamedTuple):
    """How long a training is: as far as is known now, and at most; infinite = not known."""

    expected: float
    at_most: float

    def after(self, finished: int) -> "_Length":
        return _Length(self.expected - finished, self.at_most - finished)


def beginning_now(trainer: pl.Trainer) -> Beginning:
    """Return where a training is when a batch starts.

    Before the first batch that is not known: what Lightning has restored of an epoch may be of one
    that has ended.
    """
    return Beginning(trainer.current_epoch, trainer.fit_loop.batch_idx, trainer.global_step)


def percent_finished(
    trainer: pl.Trainer,
    epoch_ended: bool = False,
    since: Beginning = FIRST_STEP,
    batch_starts: bool = False,
) -> list[int]:
    """Return how far the training is by each of its limits, in hundredths; empty = no limit.

    By ``max_epochs`` all epochs count the same, however many batches each has; within an epoch the
    batches do, and where their number is not known, nothing passes before the last one. By
    ``max_steps`` Lightning's own steps count, which end the training. It ends with the limit that
    is nearest to its end.

    Args:
        trainer: asked when a batch or an epoch ends, or a batch starts.
        epoch_ended: whether the epoch has ended; it may, without a last batch that was known.
        since: where 0 hundredths are.
        batch_starts: whether a batch is about to start.
    """
    shares = []
    epochs = planned_epochs(trainer)
    if math.isfinite(epochs):
        done = trainer.fit_loop.batch_idx + (not batch_starts)
        batches = trainer.num_training_batches
        if not math.isfinite(batches):
            done, batches = 0, 1
        if epoch_ended or (trainer.is_last_batch and not batch_starts):
            done = int(batches)
        before = since.epochs * int(batches) + min(since.batches, int(batches))
        finished = trainer.current_epoch * int(batches) + done - before
        shares.append(100 * finished // max(int(epochs) * int(batches) - before, 1))
    if trainer.max_steps != -1:
        finished, length = trainer.global_step - since.steps, trainer.max_steps - since.steps
        shares.append(100 * finished // max(length, 1))
    return [min(max(share, 0), 100) for share in shares]


def warn_of_another_target(pruner: InPlacePruner, interval: Interval) -> None:
    """Say that the masks which a training goes on with stay below, or above, another target.

    All hundredths have passed, and none comes; steps and epochs do.
    """
    clock = pruner.step_count
    if interval != "percent" or clock < 100 or pruner.at_target():
        return
    report = count_sparsity(pruner.model)
    rank_zero_warn(
        f"the schedule has ended in the checkpoint, at percent {clock}, with a sparsity of "
        f"{report.achieved:.4f}, and the target is {report.target:.4f}: its masks stay as they "
        "are; allowed: the target that it was trained for, or its weights for a new training"
    )


def check_ramps(
    trainer: pl.Trainer,
    interval: Interval,
    schedules: Iterable[SparsitySchedule],
    steps_itself: bool,
    since: Beginning = FIRST_STEP,
) -> None:
    """Refuse a ramp that cannot end inside the training that begins; warn of one that may not.

    In a training that is cut short (``fast_dev_run``, ``overfit_batches``,
    ``limit_train_batches``) it is warned of as well: such a one tries out whether all works. So it
    is where the module decides when its optimizers step (``steps_itself``).
    """
    if interval == "percent":
        _require_an_end(trainer)
    length = _length(trainer, interval).after(
        {"epoch": since.epochs, "step": since.steps}.get(interval, 0)
    )
    for end, what in ends_of(schedules):
        if end <= length.expected:
            continue
        error = RampTooLongError(end, int(length.expected), interval, what)
        if interval == "step" and steps_itself:
            rank_zero_warn(f"with one optimizer step a batch {error}")
        elif _is_shortened(trainer):
            rank_zero_warn(f"in a training that is cut short, as for a trial, {error}")
        elif end > length.at_most:
            raise error
        else:
            batches = trainer.num_training_batches
            rank_zero_warn(f"with {batches} batches in every epoch, as in this one, {error}")


def _is_shortened(trainer: pl.Trainer) -> bool:
    is_tried: Any = trainer.fast_dev_run or trainer.overfit_batches  # type: ignore[attr-defined]
    return bool(is_tried) or trainer.limit_train_batches != 1.0


def _require_an_end(trainer: pl.Trainer) -> None:
    if math.isfinite(planned_epochs(trainer)) or trainer.max_steps != -1:
        return
    timed = callbacks_of(trainer, "Timer")
    has = "max_time, which is no number of steps" if timed else "no end"
    raise PruningError(
        f"interval='percent' needs a training of known length, and this one has {has} "
        "(max_epochs=-1, max_steps=-1); allowed: max_epochs or max_steps, or another interval"
    )


def _length(trainer: pl.Trainer, interval: Interval) -> _Length:
    if interval == "percent":
        return _Length(100, 100)
    epochs, max_steps = planned_epochs(trainer), trainer.max_steps
    steps: float = max_steps if max_steps != -1 else math.inf
    bound = epochs if interval == "epoch" else steps
    if not math.isfinite(trainer.num_training_batches):
        return _Length(bound, bound)
    expected = _expected(trainer, epochs, steps)[interval]
    # Loaders that are made anew may be of another length then.
    changing = trainer.reload_dataloaders_every_n_epochs > 0  # type: ignore[attr-defined]
    return _Length(expected, bound if changing else expected)


def _expected(trainer: pl.Trainer, epochs: float, max_steps: float) -> dict[Interval, float]:
    """Return epochs and optimizer steps of the training, where each epoch has the same batches."""
    batches = trainer.num_training_batches
    # It changes the batches of a step between epochs.
    scheduler = next(iter(callbacks_of(trainer, "GradientAccumulationScheduler")), None)

    def steps_of(epoch: int) -> int:
        if scheduler is None:
            return math.ceil(batches / trainer.accumulate_grad_batches)
        batches_a_step: int = scheduler.get_accumulate_grad_batches(epoch)
        return math.ceil(batches / batches_a_step)

    epoch = finished = 0
    changes = 0 if scheduler is None else max(scheduler.epochs)
    while epoch < min(changes, epochs) and finished < max_steps:
        finished += steps_of(epoch)
        epoch += 1
    # From here on all epochs have as many steps.
    each, left = steps_of(epoch), epochs - epoch
    if math.isfinite(max_steps):
        left = min(left, math.ceil(max(max_steps - finished, 0) / each))
    return {"epoch": epoch + left, "step": min(finished + left * each, max_steps)}
