"""Pruning on a schedule during a Lightning training."""

import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any, get_args

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.config.module import check_schedule
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import PreparationWarning
from coreai_opt.pruning.stats import count_sparsity
from coreai_opt.pruning.targets import masked_names, pruned_tensors
from lightning_callbacks._averaging import MaskedAverages, evaluate_the_average, planned_epochs
from lightning_callbacks._clock import OptimizerSteps, last_dense_reading
from lightning_callbacks._compatibility import (
    refuse_other_pruners,
    refuse_sharding,
    refuse_spawning,
)
from lightning_callbacks._finders import refuse_lost_checkpoint
from lightning_callbacks._instance_hooks import InstanceHooks
from lightning_callbacks._ranks import check_masks, check_steps, may_step_apart
from lightning_callbacks._training_length import (
    Interval,
    RampTooLongError,
    check_ramps,
    end_of_ramps,
    percent_finished,
)

__all__ = ["Interval", "MasksMissingError", "RampTooLongError", "ScheduledPruning"]


class MasksMissingError(PruningError):
    """A checkpoint of a dense model is offered to a pruned run."""

    def __init__(self, missing: list[str]) -> None:
        self.missing = missing
        super().__init__(
            f"the checkpoint holds no mask for {len(missing)} of the pruned weights "
            f"(the first is {missing[0]!r}): it was saved without pruning, or with another config"
        )


class ScheduledPruning(pl.Callback):
    """Prunes the module along a schedule while it trains, on any accelerator.

    The schedule is asked before the first batch for step 0, and after the k-th optimizer step for
    k; with ``interval="epoch"`` k counts epochs finished, with ``"percent"`` hundredths of the
    training. Gradient accumulation, steps that a gradient scaler skips and several optimizers do
    not make it count twice or too early. The model is prepared before the optimizers are made, and
    layers made in ``configure_model`` are included.

    With several processes (DDP) the masks of all of them are compared whenever they change: a
    difference ends the training with a ``MaskMismatchError`` that names ranks and weights.

    Weights that have become NaN end the training when their mask would be made anew, or at the end
    of the epoch; the error names them.

    The state is in the checkpoint: masks and step counter in the model's state dict, the counts of
    the optimizers in the callback's.

    Args:
        schedule: a schedule, a dict with its ``type``, or any object with ``compute_sparsity``;
            None = the schedules in ``config``, and all at once where that has none.
        target_sparsity: the sparsity of every prunable weight at the end, in [0, 1]; instead of
            ``config``.
        config: which weights are pruned how far, a ``MagnitudePrunerConfig`` or its dict.
        interval: what the schedule counts: ``"step"``, ``"epoch"`` or ``"percent"``.
        mask_optimizer_state: neither momentum nor weight decay moves a weight while it is pruned,
            and it comes back without momentum.
        follow_calls: find the weights by following the module's forward pass on its
            ``example_input_array``, so that parameters which it hands to ``torch.nn.functional``
            itself are pruned as well; otherwise by module type.

    Raises:
        ValueError: a bad value, an object without ``compute_sparsity``, or both of
            ``target_sparsity`` and ``config``.

    Example:
        >>> from coreai_opt.pruning.config import PolynomialDecaySchedule
        >>> from lightning_callbacks import ScheduledPruning
        >>> ramp = PolynomialDecaySchedule(total_iters=400, power=2)
        >>> callback = ScheduledPruning(ramp, target_sparsity=0.9)
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, barebones=True)
    """

    def __init__(
        self,
        schedule: SparsitySchedule | Mapping[str, Any] | None = None,
        target_sparsity: float | None = None,
        # In this order: jsonargparse takes what fits first, and its own idea of a config is a half.
        config: Mapping[str, Any] | MagnitudePrunerConfig | None = None,
        interval: Interval = "step",
        mask_optimizer_state: bool = True,
        follow_calls: bool = False,
    ) -> None:
        if interval not in get_args(Interval):
            raise ValueError(f"interval is {interval!r}; allowed: {', '.join(get_args(Interval))}")
        self.interval = interval
        self.mask_optimizer_state = mask_optimizer_state
        self.follow_calls = follow_calls
        self.config = _with_schedule(_as_config(config, target_sparsity), check_schedule(schedule))
        self.pruner: MagnitudePruner | None = None
        self._steps = OptimizerSteps()
        self._steps_seen = 0
        self._clock = 0
        self._step_of_checkpoint: int | None = None
        self._has_begun = False
        self._hooks = InstanceHooks()
        self._averages = MaskedAverages()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        refuse_sharding(trainer)
        if stage == "fit":
            refuse_spawning(trainer)
            refuse_other_pruners(self, trainer)
        # Lightning calls this before the module's own setup and configure_model, and makes the
        # optimizers after them; it loads a checkpoint into the model before callbacks see it.
        # Averaging callbacks call configure_model in their setup, with a warning, where it is not
        # Lightning's own: it is extended only when the setups of all callbacks are over.
        self._restore()
        self._step_of_checkpoint, self._has_begun = None, False
        self._hooks.after(pl_module, "setup", lambda: self._extend(trainer, pl_module, stage))
        if stage != "fit":
            self._averages.drop_strangers(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._has_begun = True
        self._hooks.restore()
        refuse_lost_checkpoint(trainer, self._step_of_checkpoint)
        by_hand = not pl_module.automatic_optimization
        check_ramps(trainer, self.interval, self._schedules(), steps_itself=by_hand)
        self._watch(trainer, pl_module)
        self._averages.begin(trainer, pl_module)
        check_masks(trainer, pl_module, "when the training begins")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch >= planned_epochs(trainer):
            self._steps.detach()
            return
        if not self._steps.is_attached_to(trainer.optimizers):
            # Somebody has put others in their place.
            self._release()
            self._watch(trainer, pl_module)
        if self.interval == "epoch":
            self._advance_to(trainer.current_epoch, trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        # Lightning calls no on_train_epoch_start on going on from the last batch of an epoch.
        is_late = self.interval == "epoch" and self._clock < trainer.current_epoch
        if is_late and trainer.current_epoch < planned_epochs(trainer):
            self._advance_to(trainer.current_epoch, trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        # Masks change only after a step: accumulated gradients belong to one mask. In manual
        # optimization a batch may step none of the optimizers that count, and time goes on.
        by_batch = self.interval == "percent" and not pl_module.automatic_optimization
        if self.interval != "epoch" and may_step_apart(pl_module):
            check_steps(trainer, self._steps.finished)
        stepped = self._steps.finished > self._steps_seen
        if self.interval != "epoch" and (stepped or by_batch):
            self._steps_seen = self._steps.finished
            self._advance_to(self.clock_reading(trainer), trainer)
        self._averages.follow()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.interval == "epoch":
            self._advance_to(int(min(trainer.current_epoch + 1, planned_epochs(trainer))), trainer)
        elif self.interval == "percent":
            # An epoch that is cut short has not ended by its data.
            finished = percent_finished(trainer, epoch_ended=not trainer.should_stop)
            self._advance_to(max(finished, default=0), trainer)
        self._averages.follow()
        if self.pruner is not None:
            self.pruner.check_weights()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._release()
        self._warn_below_target()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._release()
        self._restore()
        # The processes that were spawned have refused it, and arrive here as texts.
        if trainer.state.fn == "fit" and isinstance(exception, Exception):
            refuse_spawning(trainer, exception)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()
        # Without an epoch or a batch Lightning begins no training, and ends none. A tuner ends its
        # fit by an exception.
        if stage == "fit" and not self._has_begun and sys.exception() is None:
            self._warn_below_target()

    def clock_reading(self, trainer: pl.Trainer) -> int:
        """Return what the schedule's clock should show now, in units of ``interval``."""
        if self.interval == "epoch":
            return trainer.current_epoch
        if self.interval == "percent":
            return max(percent_finished(trainer), default=0)
        return self._steps.finished

    @property
    def clock(self) -> int:
        """What the schedule's clock shows, in units of ``interval``."""
        return self._clock

    @property
    def dense_until(self) -> int:
        """The last reading of the clock at which nothing is pruned yet; -1 = there is none."""
        schedules = [config.sparsity_schedule for config in self.config.module_configs()]
        return min(map(last_dense_reading, schedules), default=-1)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Later ones are those of trials that other callbacks run.
        if self._step_of_checkpoint is None:
            self._step_of_checkpoint = checkpoint.get("global_step")

    def state_dict(self) -> dict[str, Any]:
        return {"clock": self._clock, "optimizer_steps": list(self._steps.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._clock = state_dict["clock"]
        self._steps.counts = list(state_dict["optimizer_steps"])
        self._steps_seen = self._steps.finished

    def _extend(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        def make_ready() -> None:
            # First: the copies for the averages are to have the module's own hooks.
            self._hooks.restore()
            if not self._is_prepared(pl_module):
                self._prepare(pl_module)
            self._averages.renew(trainer, pl_module)
            self._hooks.before(pl_module, "on_load_checkpoint", expect_masks)

        def expect_masks(checkpoint: dict[str, Any]) -> None:
            self._expect_masks(pl_module, checkpoint, stage)

        self._hooks.restore()
        if stage == "fit":
            self._hooks.after(pl_module, "configure_model", make_ready)
        else:
            self._hooks.before(pl_module, "on_load_checkpoint", expect_masks)

    def _restore(self) -> None:
        self._hooks.restore()
        self._averages.release()

    def _prepare(
        self, pl_module: pl.LightningModule, masked: Collection[str] | None = None
    ) -> None:
        if any(pruned_tensors(pl_module)):
            raise PruningError(
                "the module carries masks that are not this callback's; allowed: the callback that "
                "pruned it, a module whose masks were folded in (pruner.finalize()), or a fresh "
                "module, which takes the state dict of this one after it was prepared"
            )
        self.pruner = MagnitudePruner(pl_module, self.config)
        with warnings.catch_warnings():
            if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
                warnings.simplefilter("ignore", PreparationWarning)
            self.pruner.prepare(self._example_inputs(pl_module), masked=masked)
        self._clock, self._steps_seen, self._steps = 0, 0, OptimizerSteps()

    def _example_inputs(self, pl_module: pl.LightningModule) -> Any:
        if not self.follow_calls:
            return None
        if pl_module.example_input_array is None:
            raise PruningError(
                "follow_calls needs an input to follow, and the module's example_input_array is "
                "None; set it in the module's constructor"
            )
        return pl_module.example_input_array

    def _watch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        originals = (tensor.original for tensor in pruned_tensors(pl_module))
        self._steps.attach(trainer.optimizers, originals)
        if self.pruner is not None and self.mask_optimizer_state:
            self.pruner.mask_optimizer_state(*trainer.optimizers)

    def _release(self) -> None:
        self._steps.detach()
        if self.pruner is not None:
            self.pruner.release_optimizers()

    def _is_prepared(self, pl_module: pl.LightningModule) -> bool:
        is_ours = self.pruner is not None and self.pruner.model is pl_module
        return is_ours and any(pruned_tensors(pl_module))

    def _expect_masks(
        self, pl_module: pl.LightningModule, checkpoint: dict[str, Any], stage: str
    ) -> None:
        saved = checkpoint["state_dict"]
        masked = masked_names(saved)
        if stage != "fit" and not self._is_prepared(pl_module) and masked:
            # What was frozen in the training may not be now, and the other way round.
            self._prepare(pl_module, masked)
            self._averages.renew(pl_module.trainer, pl_module)
        if stage != "fit":
            evaluate_the_average(checkpoint)
        keys = [tensor.mask_key for tensor in pruned_tensors(pl_module)]
        if missing := [key for key in keys if key not in saved]:
            raise MasksMissingError(missing)

    def _advance_to(self, reading: int, trainer: pl.Trainer) -> None:
        if self.pruner is None or reading <= self._clock:
            return
        before = self.pruner.update_count
        self.pruner.step(reading - self._clock)
        self._clock = reading
        if self.pruner.update_count != before:
            check_masks(trainer, self.pruner.model, f"at {self.interval} {reading}")

    def _warn_below_target(self) -> None:
        """Say how far a ramp came that has not ended."""
        if self.pruner is None or self.pruner.at_target():
            return
        report = count_sparsity(self.pruner.model)
        end = end_of_ramps(self._schedules())
        ends = "" if end is None else f", which ends at {end}"
        rank_zero_warn(
            f"the training ended at {self.interval} {self._clock} of the schedule{ends}, below the "
            f"target sparsity: {report.achieved:.4f} of {report.target:.4f}"
        )

    def _schedules(self) -> list[SparsitySchedule]:
        schedules = (config.sparsity_schedule for config in self.config.module_configs())
        return [schedule for schedule in schedules if schedule is not None]


def _as_config(
    config: MagnitudePrunerConfig | Mapping[str, Any] | None, target_sparsity: float | None
) -> MagnitudePrunerConfig:
    if config is not None and target_sparsity is not None:
        raise ValueError("both config and target_sparsity are given; allowed: one of them")
    if target_sparsity is not None:
        return MagnitudePrunerConfig.uniform(target_sparsity)
    return MagnitudePrunerConfig.model_validate(config if config is not None else {})


def _with_schedule(
    config: MagnitudePrunerConfig, schedule: SparsitySchedule | None
) -> MagnitudePrunerConfig:
    config = config.model_copy(deep=True)
    for module_config in config.module_configs():
        if module_config.sparsity_schedule is None:
            module_config.sparsity_schedule = schedule
    return config
