"""TargetGate: an app's own checkpoints and early stopping wait for the target sparsity."""

from typing import Any

import torch
from torch import Tensor

from coreai_opt.pruning.config.given import schedules_of
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.scheduling.ramps import end_of_ramps
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.root import pl, rank_zero_info
from lightning_callbacks._lightning.roots import callbacks_of, of_root
from lightning_callbacks._lightning_internals import (
    CHECK_OF_STOPPING,
    SAVING_OF_LAST,
    count_as_saved,
    drop_link,
    require_private,
    save_last,
)
from lightning_callbacks._metrics_at_target import MetricsAtTarget, asked_zeros, at_target_sparsity
from lightning_callbacks.pruned_weights import PrunedWeights
from lightning_callbacks.scheduled_pruning import ScheduledPruning
from lightning_callbacks.target_sparsity import TargetSparsityGate, warn_nothing_at_target


class TargetGate(pl.Callback):
    """Makes the trainer's own checkpoints and early stopping wait for the target sparsity.

    During a ramp the early, dense epochs score best; what they score says nothing about the pruned
    model. While the module's masks are below their target the gate is closed: each
    ``ModelCheckpoint`` that monitors a metric chooses no best, and no ``EarlyStopping`` stops the
    training or counts its patience. Subclasses are meant as well, callbacks of the module's
    ``configure_callbacks``, and those that join the trainer later. The gate opens to a metric when
    it is one of masks at target: a validation metric when they were at target as the validation
    ran, any other when they were so since its epoch began. It is open in a training without masks
    and in one that is at target from the start.

    What waits, and how:

    - ``save_last`` writes the last state in the rhythm that it has, below the target too; as
      ``"link"`` it writes a file as long as there is nothing to link to.
    - ``save_top_k=-1``, ``every_n_train_steps``, ``train_time_interval`` and
      ``save_on_train_epoch_end`` keep nothing from below the target either. ``save_top_k=0``
      chooses nothing, and is left alone.
    - A ``ModelCheckpoint`` without a metric is left alone, and so are ``TargetSparsityCheckpoint``
      and ``TargetSparsityEarlyStopping``, which wait by themselves, and other checkpoints.
    - ``check_finite`` of an ``EarlyStopping`` ends the training below the target as well; its
      ``stopping_threshold`` and ``divergence_threshold`` do not act there.
    - Scores that a checkpoint brings from below the target do not count: best checkpoints, scores
      and patience begin anew, and files stay. Those of a training whose gate was open at the same
      target are kept.
    - A training that ends before anything was chosen leaves ``best_model_path`` empty, and says so
      in one ``NothingAtTargetWarning``, with the sparsity, the target and the file that has the
      last weights.

    The callbacks are as before when the fit has ended, or was broken off.

    Example:
        >>> from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
        >>> from lightning_callbacks import ScheduledPruning, TargetGate
        >>> own = [ModelCheckpoint(monitor="accuracy", mode="max"), EarlyStopping("accuracy")]
        >>> trainer = pl.Trainer(callbacks=[*own, ScheduledPruning(), TargetGate()], logger=False)
    """

    def __init__(self) -> None:
        self._measured = MetricsAtTarget()
        # By the state key of a callback, the zeros at target of the masks that it was opened for.
        self._opened: dict[str, int] = {}
        self._known: list[Any] = []  # the trainer's callbacks, looked through
        self._gated: dict[int, Any] = {}  # those that wait, by id
        self._hooks = MethodPatches()
        self._has_ended = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._release()
        if stage == "fit":
            self._measured, self._has_ended = MetricsAtTarget(), False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # One without a state of the gate, which Lightning then does not tell of.
        self._opened = {}

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured.state_dict(), "opened": dict(self._opened)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured.load_state_dict(state_dict.get("measured", {}))
        self._opened = dict(state_dict.get("opened", {}))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": [], "_gated": {}, "_hooks": MethodPatches()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._gate_callbacks(trainer, pl_module)
        if self._gated and not at_target_sparsity(pl_module):
            self._say_what_waits(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measured.epoch_starts(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._gate_callbacks(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._gate_callbacks(trainer, pl_module)
        self._measured.validation_starts(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measured.validation_ends(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measured.epoch_ends()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for checkpoint in self._without_best(trainer, pl_module):
            if checkpoint.save_last:
                save_last(checkpoint, trainer)
        self._has_ended = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._has_ended:
            # Now that all files are written.
            self._warn(trainer, pl_module)
        self._release()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._release()

    def is_open(self, trainer: pl.Trainer, callback: Any) -> bool:
        """Return whether the metric that a callback monitors is one of masks at target."""
        model = trainer.lightning_module
        asked = self._start_anew(callback, model)
        if not self._measured.count(callback.monitor, trainer, model):
            return False
        if asked:
            self._opened[callback.state_key] = asked
        return True

    def _gate_callbacks(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        callbacks = callbacks_of(trainer)
        if callbacks == self._known:  # asked in every batch
            return
        self._known = callbacks
        for callback in callbacks:
            if id(callback) not in self._gated and _waits(callback, trainer):
                require_private(callback)
                self._gated[id(callback)] = callback
                for method, stand_in in STAND_INS.items():
                    if hasattr(callback, method):
                        self._hooks.instead(callback, method, stand_in(self, callback, method))
                self._start_anew(callback, pl_module)

    def _say_what_waits(self, trainer: pl.Trainer) -> None:
        """Say until when no best is kept and nothing stops: a ramp may be long."""
        ours = (one for one in callbacks_of(trainer) if isinstance(one, ScheduledPruning))
        pruning = next(ours, None)
        end = None if pruning is None else end_of_ramps(schedules_of(pruning.config))
        when = (
            ""
            if pruning is None or end is None
            else f", at {pruning.interval} {end} of the schedule"
        )
        names = " and ".join(map(_name, self._gated.values()))
        saving = [one for one in self._gated.values() if hasattr(one, "save_last")]
        advice = "" if all(one.save_last for one in saving) else "; save_last=True keeps a file"
        rank_zero_info(
            f"until the target sparsity is reached{when}, {names} wait: none of them keeps a best "
            f"checkpoint or stops the training{advice}"
        )

    def _start_anew(self, callback: Any, model: pl.LightningModule) -> int:
        """Forget scores of other masks than those at this target; return the zeros of these."""
        asked = asked_zeros(model)
        if asked and self._opened.get(callback.state_key) != asked:
            _reset_scores(callback)
        return asked

    def _without_best(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[Any]:
        """Return the checkpoints that have chosen nothing and were to."""
        if trainer.fast_dev_run or not any(pruned_tensors(pl_module)):  # type: ignore[attr-defined]
            return []
        kind = of_root(trainer, "callbacks", "ModelCheckpoint")
        checkpoints = [one for one in self._gated.values() if isinstance(one, kind)]
        return [one for one in checkpoints if one.save_top_k != 0 and not one.best_model_path]

    def _warn(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if without := self._without_best(trainer, pl_module):
            names = " and ".join(map(_name, without))
            verb = "has" if len(without) == 1 else "have"
            files = [one.last_model_path for one in without if one.save_last]
            ours = [one for one in callbacks_of(trainer) if isinstance(one, PrunedWeights)]
            files += [str(one.path) for one in ours if one.path is not None]
            where = f"in {files[0]}" if files else "in no file"
            last = self._measured.last_validated
            what, clause = f"{names} {verb} chosen nothing", f"; the last weights are {where}"
            warn_nothing_at_target(what, last, pl_module, clause)

    def _release(self) -> None:
        self._hooks.restore()
        self._known, self._gated = [], {}


class _StandIn:
    """Takes the place of a method of a callback; a copy of that callback has its own method."""

    def __init__(self, gate: TargetGate, owner: Any, method: str) -> None:
        self.gate, self.owner = gate, owner
        self.method = getattr(owner, method)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.method,)


class _ChoosesAtTarget(_StandIn):
    """``ModelCheckpoint.check_monitor_top_k``: whether a score is among the best."""

    def __call__(self, trainer: pl.Trainer, current: Tensor | None = None) -> Any:
        if current is None or self.gate.is_open(trainer, self.owner):
            return self.method(trainer, current)
        if self.owner.save_last:
            count_as_saved(self.owner, trainer.global_step)
        return False


class _SavesLast(_StandIn):
    """``ModelCheckpoint._save_last_checkpoint``."""

    def __call__(self, trainer: pl.Trainer, metrics: dict[str, Tensor]) -> Any:
        if self.owner.save_last == "link" and not self.owner.best_model_path:
            drop_link(self.owner, trainer)
        return self.method(trainer, metrics)


class _StopsAtTarget(_StandIn):
    """``EarlyStopping._run_early_stopping_check``."""

    def __call__(self, trainer: pl.Trainer) -> Any:
        metric = trainer.callback_metrics.get(self.owner.monitor)
        if metric is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return self.method(trainer)
        if self.gate.is_open(trainer, self.owner) or self._has_diverged(trainer, metric):
            return self.method(trainer)
        return None

    def _has_diverged(self, trainer: pl.Trainer, metric: Tensor) -> bool:
        """Whether the metric is not finite in one of the processes, where that is to be checked."""
        if not self.owner.check_finite:
            return False
        here = not bool(torch.isfinite(metric).all())
        return bool(trainer.strategy.reduce_boolean_decision(here, all=False))


STAND_INS: dict[str, Any] = {
    "check_monitor_top_k": _ChoosesAtTarget,
    SAVING_OF_LAST: _SavesLast,
    CHECK_OF_STOPPING: _StopsAtTarget,
}


def _itself(value: Any) -> Any:
    return value


def _waits(callback: Any, trainer: pl.Trainer) -> bool:
    kinds = tuple(of_root(trainer, "callbacks", n) for n in ("ModelCheckpoint", "EarlyStopping"))
    if not isinstance(callback, kinds) or isinstance(callback, TargetSparsityGate):
        return False
    return callback.monitor is not None


def _name(callback: Any) -> str:
    return f"{type(callback).__name__}(monitor={callback.monitor!r})"


def _reset_scores(callback: Any) -> None:
    """Make best, scores and patience those of a new callback; files and the last path stay."""
    if hasattr(callback, "best_model_path"):
        worst = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)
        if callback.best_model_path:
            rank_zero_info(
                f"{_name(callback)} chooses anew, at the target sparsity: its best so far, "
                f"{callback.best_model_path}, is not of these masks"
            )
        callback.best_k_models, callback.kth_value, callback.current_score = {}, worst, None
        callback.best_model_score, callback.best_model_path = None, ""
        callback.kth_best_model_path = ""
    else:
        callback.best_score = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)
        callback.wait_count = 0
