"""ResumableCheckpoint: checkpoints from which a training goes on as if it had never stopped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection

from coreai_opt.pruning._text import listed
from lightning_callbacks._lightning.finders import found_values, keep_found_values
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.root import pl, rank_zero_warn
from lightning_callbacks._lightning.roots import require_version
from lightning_callbacks._lightning_internals import (
    BEFORE_FETCH,
    LOADERS_LOADED,
    continue_logging,
    dump_checkpoint,
    require_loop_names,
)
from lightning_callbacks._resume.checkpoint_files import (
    newest_checkpoint,
    remove_after,
    write_checkpoint,
)
from lightning_callbacks._resume.dataloader_state import TrainingLoaders
from lightning_callbacks._resume.logged_values import logged_values, restore_logged_values
from lightning_callbacks._resume.logger_rewind import (
    keep_hyperparameters,
    log_positions,
    rewind_logs,
)
from lightning_callbacks._resume.loop_state import (
    Boundary,
    continue_training,
    is_between_steps,
    run_ended_training,
    settle,
    without_lightnings_warning,
)
from lightning_callbacks._resume.random_state import random_state, restore_random_state
from lightning_callbacks._resume.unsafe_globals import ForeignObjectsWarning, foreign_in_file

# Of Lightning: the loops of older versions do not tell how they were resumed.
OLDEST = "2.5.3"

Observer = Callable[[pl.Trainer, Callable[[Path], None]], None]


class CheckpointNotWrittenWarning(UserWarning):
    """A checkpoint could not be written; the training goes on without it."""


class ResumableCheckpoint(pl.Callback):
    """Writes checkpoints between two optimizer steps, and makes a training that is resumed from one
    equal to the training that never stopped, bit for bit.

    Beside what Lightning saves, a checkpoint holds the state of all random number generators, the
    position of the data loaders, what was logged so far, and how far the log files were; gradients
    as well in manual optimization. ``fit(ckpt_path=...)`` goes on from it: metrics.csv and
    TensorBoard's files are cut to what they held, ``SparsityMonitor`` does the same with its own.

    Exact needs the same versions, device kind and thread count, and deterministic algorithms. It
    holds for data of ``coreai_opt.data``, torchdata's ``StatefulDataLoader``, loaders that keep a
    ``state_dict``, and plain ones; what workers draw at random is lost, unless the loader's state
    holds it. What a module keeps outside of its state dict and ``on_save_checkpoint`` is lost, as
    in any checkpoint.

    A file is written beside and renamed; its name holds a checksum of its content.

    It needs Lightning 2.5.3 or newer, and a fit in an older one raises a ``PruningError``.

    Args:
        dirpath: folder for the files.
        every_n_steps: optimizer steps between two checkpoints, >= 1; None = none within an epoch.
        every_n_epochs: epochs between two checkpoints, >= 1; None = none at ends of epochs.
        keep: how many files stay, the newest ones, >= 1.
        interruption: asked at every step boundary; the exception that it returns is raised there
            on all ranks, after a checkpoint was written. None = nobody asks.
        observer: called at every step boundary with the trainer and a function that writes a
            checkpoint of this place to the path that it is given. None = nobody is called.

    Raises:
        ValueError: a number that is not allowed.

    Example:
        >>> from lightning_callbacks import ResumableCheckpoint
        >>> checkpoint = ResumableCheckpoint("run/resume", every_n_steps=500)
        >>> checkpoint.newest() is None  # a path for fit(ckpt_path=...), once there is one
        True
    """

    def __init__(
        self,
        dirpath: str | Path,
        every_n_steps: int | None = None,
        every_n_epochs: int | None = 1,
        keep: int = 2,
        interruption: Callable[[], BaseException | None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        given = {"every_n_steps": every_n_steps, "every_n_epochs": every_n_epochs, "keep": keep}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; allowed: 1 or more")
        self.dirpath = Path(dirpath)
        self.every_n_steps, self.every_n_epochs, self.keep = every_n_steps, every_n_epochs, keep
        self.seconds_before = 0.0
        self._interruption = interruption
        self._observer = observer
        self._hooks = MethodPatches()
        self._loaders = TrainingLoaders()
        self._saving: dict[str, Any] = {}
        self._resumed: dict[str, Any] | None = None
        self._saved_at: tuple[int, int, int] | None = None
        self._step_of_last = 0
        self._is_postponed = False
        self._is_checked = False
        self._began = time.monotonic()

    def newest(self) -> Path | None:
        """Return the newest checkpoint that is whole, for ``fit(ckpt_path=...)``; None = none.

        A ``DamagedCheckpointWarning`` names each damaged one.
        """
        file = newest_checkpoint(self.dirpath)
        return None if file is None else file.path

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, that of interrupted processes included."""
        return self.seconds_before + time.monotonic() - self._began

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        require_version(type(self).__name__, trainer, OLDEST)
        require_loop_names(trainer)
        # What is saved when a step begins must not hold half of what callbacks do there.
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.remove(self)
        callbacks.insert(0, self)
        self._hooks.restore()
        self._resumed, self._saved_at, self._step_of_last = None, None, 0
        self._is_postponed = False
        self._began, self.seconds_before = time.monotonic(), 0.0
        loop, loaders = trainer.fit_loop, self._loaders
        self._hooks.after(loop, LOADERS_LOADED, lambda: loaders.begin(trainer))
        self._hooks.before(loop, "run", lambda: self._restore_training(trainer))
        self._hooks.before(loop.epoch_loop, BEFORE_FETCH, lambda: loaders.fetch(trainer))
        self._hooks.around(loop.epoch_loop, "reset", without_lightnings_warning)
        self._hooks.before(loop.epoch_loop, "on_run_start", lambda *_: self._begin_epoch(trainer))
        self._hooks.after(loop.epoch_loop, "on_run_start", lambda: self._return_to_batch(trainer))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._resumed is not None:
            keep_hyperparameters(trainer, self._hooks)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_resumed_at("epoch"):
            self._finish_resuming(trainer)
            return
        ended = trainer.current_epoch
        due = self.every_n_epochs is not None and ended > 0 and ended % self.every_n_epochs == 0
        self._boundary(trainer, "epoch", due)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._is_resumed_at("batch"):
            continue_logging(trainer)
            self._finish_resuming(trainer)
        elif batch_idx > 0 and is_between_steps(trainer):
            self._boundary(trainer, "batch", due=False)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._loaders.note_states(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_resumed_at("end"):
            self._finish_resuming(trainer)
        else:
            self._boundary(trainer, "end", due=self.every_n_epochs is not None)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._hooks.restore()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._hooks.restore()

    def state_dict(self) -> dict[str, Any]:
        return self._saving  # empty in the checkpoints of others

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._resumed, self.seconds_before = state_dict, state_dict["seconds"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        own = checkpoint["callbacks"].get(self.state_key)
        if own and trainer.training:
            keep_found_values(trainer, own.get("found", {}), self._hooks)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._saving:
            settle(checkpoint["loops"]["fit_loop"], self._saving["boundary"])

    def _boundary(self, trainer: pl.Trainer, boundary: Boundary, due: bool) -> None:
        if self._observer is not None:
            self._observer(
                trainer,
                lambda path: trainer.strategy.save_checkpoint(self._dump(trainer, boundary), path),
            )
        asked = None if self._interruption is None else self._interruption()
        interruption = _first_of_ranks(trainer, asked)
        step = trainer.global_step
        every = self.every_n_steps
        due = due or (every is not None and step // every > self._step_of_last // every)
        due = due or interruption is not None or self._is_postponed
        self._is_postponed = due and not self._save(trainer, boundary)
        if self._is_postponed:
            return  # a batch later
        if interruption is not None:
            raise interruption

    def _save(self, trainer: pl.Trainer, boundary: Boundary) -> bool:
        """Write a checkpoint, and return whether this was a place where it can be done."""
        place = _place(trainer)
        if place == self._saved_at:
            return True
        if self._loaders.state(trainer, in_epoch=boundary == "batch") is None:
            return False
        # Also where it cannot be written: all ranks have to agree on when they save.
        self._saved_at, self._step_of_last = place, trainer.global_step
        step, is_first = trainer.global_step, trainer.is_global_zero
        try:
            checkpoint = self._dump(trainer, boundary)

            def write(path: Path) -> None:
                trainer.strategy.save_checkpoint(checkpoint, path)
                if is_first:
                    self._warn_of_foreign(path)

            write_checkpoint(self.dirpath, step, write, is_first, self.keep)
        except OSError as error:
            rank_zero_warn(
                f"no checkpoint of step {step} could be written to {self.dirpath}: "
                f"{error.strerror or error}; the run goes on",
                category=CheckpointNotWrittenWarning,
            )
        trainer.strategy.barrier("ResumableCheckpoint")
        return True

    def _warn_of_foreign(self, path: Path) -> None:
        if self._is_checked:
            return
        self._is_checked = True
        if foreign := foreign_in_file(path):
            rank_zero_warn(
                "no run can go on from its checkpoints: they hold more than tensors and plain "
                f"values ({listed(foreign, str)}), which fit(weights_only=True) does not unpickle; "
                "allowed: to leave it out of what the model and its callbacks save, or "
                "torch.serialization.add_safe_globals([CLASS]) in the model's module",
                category=ForeignObjectsWarning,
            )

    def _dump(self, trainer: pl.Trainer, boundary: Boundary) -> dict[str, Any]:
        """Return a checkpoint of this place; needs all ranks."""
        self._saving = self._state(trainer, boundary)
        try:
            return dump_checkpoint(trainer)
        finally:
            self._saving = {}

    def _state(self, trainer: pl.Trainer, boundary: Boundary) -> dict[str, Any]:
        module = trainer.lightning_module
        loaders = self._loaders.state(trainer, in_epoch=boundary == "batch")
        if loaders is None:
            raise OSError("the data loader cannot say yet where it is")
        own = {
            "random": random_state(),
            "loaders": loaders,
            "logged": logged_values(trainer),
            "gradients": None if module.automatic_optimization else _gradients(module),
        }
        return {
            "boundary": boundary,
            "place": _place(trainer),
            "ranks": _of_all_ranks(trainer, own),
            "should_stop": trainer.should_stop,  # it waits for min_epochs or min_steps
            "logs": log_positions(trainer),
            "found": found_values(trainer),
            "seconds": self.seconds,
        }

    def _is_resumed_at(self, boundary: Boundary) -> bool:
        return self._resumed is not None and self._resumed["boundary"] == boundary

    def _restore_training(self, trainer: pl.Trainer) -> None:
        """Restore what only exists once Lightning has loaded its part; before the first hook."""
        resumed = self._resumed
        if resumed is None:
            return
        # It may have been set up before Lightning restored the loops: for the number of steps.
        trainer.fit_loop.setup_data()
        self._saved_at, self._step_of_last = resumed["place"], resumed["place"][0]
        if trainer.is_global_zero:
            remove_after(self.dirpath, self._step_of_last)
        trainer.should_stop = resumed["should_stop"]
        own = _own(trainer, resumed)
        rewind_logs(trainer, resumed["logs"])
        restore_logged_values(trainer, own["logged"])
        _restore_gradients(trainer.lightning_module, own["gradients"])
        if resumed["boundary"] == "epoch":
            continue_training(trainer, "epoch")
            self._loaders.finish_epochs(trainer, own["loaders"])
        elif resumed["boundary"] == "end":
            run_ended_training(trainer)

    def _begin_epoch(self, trainer: pl.Trainer) -> None:
        # The first epoch's iterator was made when the data was set up, and so was that of an epoch
        # at whose begin another callback has run a trial.
        if self._is_resumed_at("batch"):
            return
        if trainer.current_epoch > 0 and not trainer.fit_loop.is_resuming:
            self._loaders.begin(trainer)
        else:
            self._loaders.begin_first(trainer)

    def _return_to_batch(self, trainer: pl.Trainer) -> None:
        if self._resumed is not None and self._is_resumed_at("batch"):
            continue_training(trainer, "batch")
            batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
            self._loaders.return_to(trainer, _own(trainer, self._resumed)["loaders"], batches)

    def _finish_resuming(self, trainer: pl.Trainer) -> None:
        assert self._resumed is not None
        own = _own(trainer, self._resumed)
        if self._resumed["boundary"] == "epoch":
            self._loaders.begin_epoch(trainer, own["loaders"])
        restore_random_state(own["random"])
        self._resumed = None


def _place(trainer: pl.Trainer) -> tuple[int, int, int]:
    """Return optimizer steps, batches and epochs finished: a skipped step is a place as well."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed
    return trainer.global_step, batches, trainer.current_epoch


def _first_of_ranks(
    trainer: pl.Trainer, interruption: BaseException | None
) -> BaseException | None:
    """Return what ends the training on all ranks, whichever was asked to."""
    if not trainer.strategy.reduce_boolean_decision(interruption is not None, all=False):
        return None
    asked = [one for one in _of_all_ranks(trainer, interruption) if one is not None]
    return interruption or asked[0]


def _of_all_ranks(trainer: pl.Trainer, value: Any) -> list[Any]:
    if trainer.world_size == 1:
        return [value]
    gathered: list[Any] = [None] * trainer.world_size
    # A tensor would arrive on the device of the rank that sends it.
    on_cpu = apply_to_collection(value, torch.Tensor, lambda tensor: tensor.detach().cpu())
    torch.distributed.all_gather_object(gathered, on_cpu)
    return gathered


def _own(trainer: pl.Trainer, resumed: dict[str, Any]) -> dict[str, Any]:
    """Return what this rank has saved."""
    ranks: list[dict[str, Any]] = resumed["ranks"]
    return ranks[trainer.global_rank % len(ranks)]


def _gradients(module: pl.LightningModule) -> dict[str, torch.Tensor]:
    named = module.named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def _restore_gradients(
    module: pl.LightningModule, gradients: dict[str, torch.Tensor] | None
) -> None:
    parameters = dict(module.named_parameters())
    for name, gradient in (gradients or {}).items():
        parameters[name].grad = gradient.to(parameters[name].device)
