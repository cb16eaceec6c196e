"""Final model of a training: validated, and saved as the last checkpoint.

Lightning's validation rhythm may leave out the last steps. The best and the last checkpoint would
then hold an earlier model, whose sparsity may be below the target.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from coreai_opt.training.checkpoint_content import refuse_foreign
from lightning_callbacks import ScheduledPruning, TargetSparsityCheckpoint
from lightning_callbacks._resume.loop_state import ends_training


class FinalValidation(pl.Callback):
    """Has Lightning validate after the last batch of a training, whatever the rhythm is.

    It belongs behind all other callbacks: Lightning asks for the rhythm when they have ended the
    batch, and callbacks that save ask for it as well.
    """

    def __init__(self) -> None:
        self._rhythm: tuple[Any, Any] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if ends_training(trainer):
            self._rhythm = trainer.check_val_every_n_epoch, trainer.val_check_batch
            trainer.check_val_every_n_epoch, trainer.val_check_batch = None, 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._rhythm is not None:
            trainer.check_val_every_n_epoch, trainer.val_check_batch = self._rhythm
            self._rhythm = None

    on_train_epoch_end = on_validation_start

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.on_validation_start(trainer, pl_module)


def checkpoints_of(trainer: pl.Trainer) -> tuple[str | None, str | None]:
    """Return the best checkpoint at target sparsity, and the last one, which is of the last step.

    The last one is written anew where its callback has not saved the model as it is now: masks that
    change when an epoch has ended change after its validation, and a callback may end a training.
    """
    best = last = None
    for callback in trainer.checkpoint_callbacks:
        # A module may bring checkpoint callbacks of its own, which know nothing of sparsity.
        if isinstance(callback, TargetSparsityCheckpoint) and callback.monitor is not None:
            best = callback.best_model_path or None
        elif isinstance(callback, ModelCheckpoint) and callback.monitor is None:
            last = _of_the_end(callback, trainer)
    return best, last


def _of_the_end(callback: ModelCheckpoint, trainer: pl.Trainer) -> str | None:
    saved = callback.best_model_path or None
    if not trainer.global_step or callback.save_top_k == 0:
        return saved
    is_current = saved is not None and _holds(saved, trainer)
    if trainer.strategy.broadcast(is_current):
        return saved
    place = {"epoch": trainer.current_epoch, "step": trainer.global_step}
    metrics = {name: torch.tensor(value) for name, value in place.items()}
    path = callback.format_checkpoint_name(trainer.callback_metrics | metrics)
    trainer.save_checkpoint(path, callback.save_weights_only)
    return path


def _holds(path: str, trainer: pl.Trainer) -> bool:
    """Whether a checkpoint is of the step and has the masks that the training has ended with.

    Masks are a function of the schedule's clock.
    """
    if not Path(path).is_file():
        return True  # sharded, or somewhere else: a strategy that does not prune
    refuse_foreign(path, "callbacks")
    content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    if content["global_step"] != trainer.global_step:
        return False
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return all(
        content["callbacks"].get(callback.state_key, {}).get("clock") == callback.clock
        for callback in callbacks
        if isinstance(callback, ScheduledPruning)
    )
