"""Loop state: Lightning's counters between two steps, for a restart that counts nothing twice.

Lightning's own restart is made for checkpoints that its hooks write in the middle of a step's end:
it repeats some of what follows the step and leaves out the rest. Here a checkpoint is written when
all that belongs to a step is done and nothing of the next has begun, and Lightning is told so.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning.roots import callbacks_of
from lightning_callbacks._lightning_internals import end_restart, start_epoch_anew

Boundary = Literal["batch", "epoch", "end"]
"""Between two batches, between two epochs, or after the last."""

COUNTERS = ("ready", "started", "processed")


def is_between_steps(trainer: pl.Trainer) -> bool:
    """Return whether no gradients of an unfinished optimizer step are there.

    Asked when a batch starts, before it counts as one.
    """
    if not trainer.lightning_module.automatic_optimization:
        return True  # gradients are saved: when the module steps is not known
    finished = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    return finished % trainer.accumulate_grad_batches == 0


def ends_training(trainer: pl.Trainer) -> bool:
    """Return whether the training ends with this batch, by its limits or because it was stopped.

    Asked in ``on_train_batch_end``, before the batch counts as one.
    """
    if -1 != trainer.max_steps <= trainer.global_step:
        return True
    epochs = trainer.max_epochs
    if trainer.is_last_batch and epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs:
        return True
    late_enough = trainer.current_epoch >= (trainer.min_epochs or 0)
    return trainer.should_stop and late_enough and trainer.global_step >= (trainer.min_steps or 0)


def settle(loops: dict[str, Any], boundary: Boundary) -> None:
    """Rewrite the counters of the fit loop in a checkpoint so that nothing is under way."""
    _finish(loops["epoch_loop.batch_progress"])
    # Asked when the next batch has been fetched; TrainingLoaders knows what they said before.
    loops["state_dict"].pop("combined_loader", None)
    if boundary == "batch":
        loops["epoch_loop.batch_progress"]["is_last_batch"] = False
    else:
        _finish(loops["epoch_progress"])


def continue_training(trainer: pl.Trainer, boundary: Boundary) -> None:
    """Make a restored training go on as one that never stopped.

    Called at an epoch's begin before the loops are reset, within an epoch after that: the reset
    has to know of the restart, and what comes then must not.
    """
    end_restart(trainer)
    if boundary == "epoch":
        start_epoch_anew(trainer)
        return
    # It sets the trainer's number when an epoch begins; this one has begun in another process.
    for callback in callbacks_of(trainer, "GradientAccumulationScheduler"):
        callback.on_train_epoch_start(trainer, trainer.lightning_module)


def run_ended_training(trainer: pl.Trainer) -> None:
    """Call the hooks of the begin and the end of a training that has no step left."""
    continue_training(trainer, "epoch")
    loop = trainer.fit_loop
    loop.reset()
    loop.on_run_start()
    loop.on_run_end()
    # Early stopping is no limit that the loop would find reached by itself.
    trainer.should_stop = True


@contextmanager
def without_lightnings_warning() -> Iterator[None]:
    """Say nothing of loaders that Lightning cannot resume, and TrainingLoaders can."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
        yield


def _finish(progress: dict[str, Any]) -> None:
    for counts in (progress["total"], progress["current"]):
        for name in COUNTERS:
            counts[name] = counts["completed"]
