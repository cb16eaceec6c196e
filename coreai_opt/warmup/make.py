"""Making a warm-up: a training that ends as completed where its first mask would be made."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.scheduling.groups import will_prune
from coreai_opt.runs.context import RunContext
from coreai_opt.runs.data_files import data_files
from coreai_opt.warmup.key import warmup_end, warmup_key
from coreai_opt.warmup.run import WarmupNotPossibleError
from coreai_opt.warmup.sources import sources_of_this_process
from lightning_callbacks import ScheduledPruning
from lightning_callbacks._lightning_internals import csv_prefix
from lightning_callbacks._resume.checkpoint_files import checkpoint_files
from lightning_callbacks._resume.dataloader_state import repeats_exactly
from lightning_callbacks._resume.unsafe_globals import foreign_in_file


class WarmupEnded(Exception):
    """The warm-up is complete, and its checkpoint is written."""


class MakeWarmup(pl.Callback):
    """Ends a training at the step boundary where its warm-up ends.

    Args:
        config: the resolved config.
        context: the run.
        trainer: with its callbacks and loggers.
        model: what is trained, without masks yet.

    Raises:
        WarmupNotPossibleError: nothing can be shared.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        context: RunContext,
        trainer: pl.Trainer,
        model: pl.LightningModule,
    ) -> None:
        self._context, self._trainer = context, trainer
        self._end, self._facts = warmup_end(config), {"key": context.record.content["config_hash"]}
        if warmup_key(config) != self._facts["key"]:
            raise WarmupNotPossibleError("its config has come out otherwise than planned")
        # Importing and building take their time in every run.
        start = context.start
        spent = start.earlier.seconds if start.earlier and start.checkpoint else 0.0
        self._seconds_before = context.record.seconds - spent
        # Now: the code that trains, not that of the files at the end. A warm-up that is killed or
        # fails is trained again where its code has changed.
        self._sources = sources_of_this_process()
        context.record.update(warmup={**self._facts, "sources": self._sources})
        context.record.save()
        self._pruning = _clock_of(trainer, model)
        self._seen = 0

    def interruption(
        self, pending: Callable[[], BaseException | None]
    ) -> Callable[[], BaseException | None]:
        """Return what ends the training: a signal, or the end of the warm-up.

        Args:
            pending: returns the signal that has arrived, None = none.
        """
        return lambda: pending() or self._over()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        record = self._context.record
        data = trainer.datamodule  # type: ignore[attr-defined]
        record.update(data={"files": data_files(record.content["config"], data)})
        record.save()  # now: a first run has fetched its data, and may be killed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_again()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._end_again()
        # The end is that of the warm-up. A clock of epochs says how far off it is when it moves.
        progress, clock = self._context.progress, self._pruning.clock
        if clock == 0:
            progress.total_steps = None
        elif clock != self._seen:
            progress.total_steps = math.ceil(trainer.global_step * self._end / clock)
        self._seen = clock

    def _over(self) -> BaseException | None:
        if self._pruning.clock < self._end:
            return None
        module = self._trainer.lightning_module
        if any(tensor.impl.sparsity > 0 for tensor in pruned_tensors(module)):
            return WarmupNotPossibleError("the schedule's clock leaps over the end of the warm-up")
        if not repeats_exactly(self._trainer):
            return WarmupNotPossibleError("the data loader has workers and keeps no state")
        return WarmupEnded()

    def _end_again(self) -> None:
        """End a run that was killed between its last checkpoint and the end of its record."""
        if self._pruning.clock < self._end:
            return
        files = checkpoint_files(self._context.paths.resume)
        is_saved = bool(files) and files[0].step == self._trainer.global_step
        if is_saved and isinstance(error := self._over(), WarmupEnded):
            raise error

    def finish(self) -> None:
        """Write into the record what a job needs that starts from this warm-up.

        Raises:
            WarmupNotPossibleError: its checkpoint holds objects that no job would load.
            OSError: there is no checkpoint of the last step.
        """
        steps, paths = self._trainer.global_step, self._context.paths
        files = checkpoint_files(paths.resume)
        if not files or files[0].step != steps:
            raise OSError("the checkpoint of the warm-up could not be written")
        for file in files[1:]:
            file.path.unlink(missing_ok=True)
        if foreign := foreign_in_file(files[0].path):
            objects = ", ".join(foreign)
            raise WarmupNotPossibleError(f"its checkpoint holds more than plain values ({objects})")
        modules = sources_of_this_process()["modules"]  # some were imported meanwhile
        facts = {
            **self._facts,
            "steps": steps,
            "seconds": round(self._context.record.seconds - self._seconds_before, 3),
            # Callbacks name the files that they keep by where links lead.
            "root": os.path.realpath(paths.root),
            "sources": {**self._sources, "modules": {**modules, **self._sources["modules"]}},
        }
        self._context.record.update(warmup=facts)


def pruning_of(trainer: pl.Trainer, model: pl.LightningModule) -> ScheduledPruning | None:
    """Return the callback that will prune a model, None where none will."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = [one for one in callbacks if isinstance(one, ScheduledPruning)]
    # With a target of next to nothing a dense model is at target, and may be the best one.
    return found[0] if found and will_prune(model, found[0].config) else None


def _clock_of(trainer: pl.Trainer, model: pl.LightningModule) -> ScheduledPruning:
    """Return the callback whose clock says when the warm-up ends."""
    pruning = pruning_of(trainer, model)
    if pruning is None:
        raise WarmupNotPossibleError("nothing is pruned")
    if not _curves_travel(trainer):
        raise WarmupNotPossibleError("its loggers keep no metrics.csv under their own names")
    return pruning


def _curves_travel(trainer: pl.Trainer) -> bool:
    """Return whether metrics.csv holds what all loggers were told, under its own names."""
    tables = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    return not trainer.loggers or (bool(tables) and not any(map(csv_prefix, tables)))
