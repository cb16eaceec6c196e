"""ScheduledPruning: the Lightning callback that prunes along a schedule."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from coreai_opt.pruning import InPlacePruner, MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.config.dense_reading import last_dense_reading
from coreai_opt.pruning.config.given import config_of, schedules_of
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import PreparationWarning
from coreai_opt.pruning.in_place.pruner import MasksFrom
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.saving.folding import fold_former_masks
from coreai_opt.pruning.scheduling.optimizer_steps import OptimizerSteps
from coreai_opt.pruning.scheduling.ramps import (
    Interval,
    RampTooLongError,
    check_choices,
    shortfalls,
)
from coreai_opt.pruning.spec.mask_state import STEP_COUNT
from lightning_callbacks._averaging import MaskedAverages, evaluate_the_average, planned_epochs
from lightning_callbacks._lightning.compatibility import (
    refuse_other_pruners,
    refuse_sharding,
    warn_of_untrained,
)
from lightning_callbacks._lightning.finders import refuse_lost_checkpoint
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.ranks import check_masks, check_steps, may_step_apart
from lightning_callbacks._lightning.root import pl, rank_zero_info, rank_zero_only, rank_zero_warn
from lightning_callbacks._lightning.training_length import (
    Beginning,
    beginning_now,
    check_ramps,
    percent_finished,
    warn_of_another_target,
)
from lightning_callbacks._resume.plain_checkpoints import PlainCheckpoints

__all__ = ["Interval", "RampTooLongError", "ScheduledPruning"]


class ScheduledPruning(pl.Callback):
    """Prunes the module along a schedule while it trains, on any accelerator.

    The module stays as it is: its weights are masked in place, and nothing else of it changes, at
    no moment of the training. Its checkpoints hold the masked weights under its own names, and are
    read without this package. What is pruned is 0 in every forward pass: an optimizer's ``step``
    masks before it returns, and what somebody else has written is masked before the next batch.

    The schedule is asked before the first batch for step 0, and after the k-th optimizer step for
    k; with ``interval="epoch"`` k counts epochs finished, with ``"percent"`` hundredths of the
    training. Gradient accumulation, steps that a gradient scaler skips and several optimizers do
    not make it count twice or too early. Layers made in ``setup`` and ``configure_model`` are
    included.

    A fit that goes on from a checkpoint without masks, as of a dense training, takes its weights,
    optimizers and position; the schedule begins there, and hundredths are those of what is left.
    Checkpoints of models that ``MagnitudePruner`` or ``torch.nn.utils.prune`` have put masks on
    are loaded as those of the plain model; with masks and step of the first the fit goes on.

    With several processes (DDP) the masks of all of them are compared whenever they change: a
    difference ends the training with a ``MaskMismatchError`` that names ranks and weights.

    Weights that have become NaN end the training when their mask would be made anew, or at the end
    of the epoch; the error names them.

    Masks (one bit an element), the dense values of what is pruned and the clock are in the
    callback's own state in the checkpoint.

    Args:
        schedule: a schedule, a dict with its ``type``, or any object with ``compute_sparsity``;
            None = the schedules in ``config``, and all at once where that has none.
        target_sparsity: the sparsity of every prunable weight at the end, in [0, 1]; instead of
            ``config``.
        config: which weights are pruned how far, a ``MagnitudePrunerConfig`` or its dict.
        interval: what the schedule counts: ``"step"``, ``"epoch"`` or ``"percent"``.
        follow_calls: find the weights by following the module's forward pass on its
            ``example_input_array``, so that parameters which it hands to ``torch.nn.functional``
            itself are pruned as well; otherwise by module type.
        masks_from: ``"zeros"`` = the zeros that the weights have when the fit begins, from a sparse
            checkpoint of anybody's, are their masks: kept for good without a schedule, and where a
            schedule begins otherwise (see ``InPlacePruner.prepare``).

    Attributes:
        pruner: holds masks and dense values; None before the first fit.

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
        follow_calls: bool = False,
        masks_from: MasksFrom = "schedule",
    ) -> None:
        check_choices(interval, masks_from)
        self.interval = interval
        self.masks_from = masks_from
        self.follow_calls = follow_calls
        self.config = config_of(schedule, target_sparsity, config)
        self.pruner: InPlacePruner | None = None
        self._steps = OptimizerSteps()
        self._steps_seen = 0
        self._beginning = Beginning()
        self._loaded: Mapping[str, Any] | None = None  # the masks of a checkpoint
        self._is_dense_start = self._is_set_up = self._has_begun = self._evaluates = False
        self._is_of_another = False  # the checkpoint, than the module that is pruned
        self._step_of_checkpoint: int | None = None
        self._hooks = MethodPatches()
        self._averages = MaskedAverages()
        self._checkpoints = PlainCheckpoints(self.state_key)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        refuse_sharding(trainer)
        self._restore()
        self._loaded, self._is_dense_start = None, False
        self._is_set_up, self._has_begun = False, False
        self._evaluates, self._step_of_checkpoint = stage != "fit", None
        self._checkpoints.patch_loading(self, trainer, pl_module, self._hooks, self._evaluates)
        if stage == "fit":
            refuse_other_pruners(self, trainer)
        else:
            self._hooks.before(pl_module, "on_load_checkpoint", evaluate_the_average)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        has_masks = "masks" in checkpoint.get("callbacks", {}).get(self.state_key, {})
        # Later ones are those of trials that other callbacks run.
        if self._step_of_checkpoint is None:
            self._step_of_checkpoint = checkpoint.get("global_step")
            self._is_dense_start = not self._is_set_up and not has_masks
        other = self.pruner is not None and self.pruner.model is not pl_module
        self._is_of_another = self._evaluates and other
        if not self._is_of_another and (other or not has_masks):
            # The weights that were loaded are not those that the masks here are of.
            self._let_go()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "masks" not in state_dict or self._is_of_another:
            return
        try:
            if self.pruner is not None:
                self.pruner.load_state_dict(state_dict["masks"])
        except PruningError:
            if not self._evaluates:
                raise
            self._let_go()  # what is evaluated may have been pruned otherwise
            return
        self._steps.counts = list(state_dict["optimizer_steps"])
        # Who saves before this callback has had its turn saves the masks before the step.
        self._steps_seen = state_dict.get("steps_seen", self._steps.finished)
        self._beginning = Beginning(*state_dict["beginning"])
        self._loaded = state_dict["masks"]

    def state_dict(self) -> dict[str, Any]:
        if self.pruner is None:
            return {}
        return {
            "clock": self.clock,
            "optimizer_steps": list(self._steps.counts),
            "steps_seen": self._steps_seen,
            "beginning": list(self._beginning),
            "masks": self.pruner.state_dict(),
        }

    def __getstate__(self) -> dict[str, Any]:
        # The masks are those of one module: a copy of the callback begins anew.
        anew = {"pruner": None, "_loaded": None, "_steps": OptimizerSteps()}
        return self.__dict__ | anew | {"_hooks": MethodPatches(), "_averages": MaskedAverages()}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # By now all layers are there, on their device, with the weights of a checkpoint; the
        # optimizers are given their part of it after this.
        self._hooks.restore()
        self._checkpoints.order_optimizers(trainer, pl_module)
        self._make_ready(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Another callback may have begun a trial in its on_fit_start, before this one's.
        pruner = self._make_ready(pl_module)
        self._has_begun = True
        refuse_lost_checkpoint(trainer, self._step_of_checkpoint)
        if self._is_dense_start:
            self._beginning = Beginning(trainer.current_epoch, 0, trainer.global_step)
            rank_zero_info(
                f"the checkpoint of step {trainer.global_step} has no masks: its weights are "
                "taken, and pruning begins now, at the beginning of its schedule"
            )
        by_hand = not pl_module.automatic_optimization
        check_ramps(trainer, self.interval, schedules_of(self.config), by_hand, self._beginning)
        warn_of_another_target(pruner, self.interval)
        warn_of_untrained(trainer, pl_module)
        self._attach(trainer, pl_module, pruner)
        self._averages.mask(trainer, pruner)
        check_masks(trainer, pl_module, "when the training begins")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch >= planned_epochs(trainer):
            self._steps.detach()
            return
        if self.pruner is not None and not self._steps.is_attached_to(trainer.optimizers):
            # Somebody has put others in their place.
            self._release()
            self._attach(trainer, pl_module, self.pruner)
        if self.interval == "epoch":
            self._advance_to(self.clock_reading(trainer), trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if self.pruner is not None:
            self.pruner.mask_weights()
        if self._is_dense_start and self.interval == "percent":
            self._beginning = beginning_now(trainer)
        self._is_dense_start = False
        if trainer.current_epoch >= planned_epochs(trainer):
            return
        # Lightning calls no on_train_epoch_start on going on from the last batch of an epoch.
        if self.interval == "epoch" or self._steps.finished > self._steps_seen:
            self._steps_seen = self._steps.finished
            self._advance_to(self._reading(trainer, batch_starts=True), trainer)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        # Before Lightning clips. The end of the backward pass has masked them already, unless a
        # module computes gradients in a way of its own.
        if self.pruner is not None:
            self.pruner.mask_gradients(optimizer)

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
        self._mask_averages(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.pruner is not None and trainer.state.fn == "fit":
            self.pruner.mask_weights(also_data=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.interval == "epoch":
            finished = int(min(trainer.current_epoch + 1, planned_epochs(trainer)))
            self._advance_to(finished - self._beginning.epochs, trainer)
        elif self.interval == "percent" and not self._is_dense_start:
            # An epoch that is cut short has not ended by its data.
            ended = not trainer.should_stop
            shares = percent_finished(trainer, epoch_ended=ended, since=self._beginning)
            self._advance_to(max(shares, default=0), trainer)
        self._mask_averages(trainer)
        if self.pruner is not None:
            self.pruner.check_weights()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._release()
        if self.pruner is not None:
            # An adapter may have been merged into a weight that no optimizer holds.
            self.pruner.mask_weights(also_data=True)
        self._warn_below_target()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._release()
        self._restore()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()
        # Without an epoch or a batch Lightning begins no training, and ends none. A tuner ends its
        # fit by an exception.
        if stage == "fit" and not self._has_begun and sys.exception() is None:
            self._warn_below_target()

    def clock_reading(self, trainer: pl.Trainer) -> int:
        """Return what the schedule's clock should show now, in units of ``interval``."""
        return self._reading(trainer)

    def _reading(self, trainer: pl.Trainer, batch_starts: bool = False) -> int:
        if self.interval == "epoch":
            return trainer.current_epoch - self._beginning.epochs
        if self.interval == "percent":
            shares = percent_finished(trainer, False, self._beginning, batch_starts)
            return max(shares, default=0)
        return self._steps.finished

    @property
    def clock(self) -> int:
        """What the schedule's clock shows, in units of ``interval``."""
        if self.pruner is not None:
            return self.pruner.step_count
        return 0 if self._loaded is None else int(self._loaded[STEP_COUNT])

    @property
    def dense_until(self) -> int:
        """The last reading of the clock at which nothing is pruned yet; -1 = there is none."""
        schedules = [config.sparsity_schedule for config in self.config.module_configs()]
        return min(map(last_dense_reading, schedules), default=-1)

    def _make_ready(self, pl_module: pl.LightningModule) -> InPlacePruner:
        """Return the pruner of the module, with the masks of a checkpoint if one was loaded."""
        self._is_set_up = True
        pruner = self.pruner
        if pruner is None or pruner.model is not pl_module or not pruner.is_prepared:
            pruner = self.pruner = self._prepare(pl_module)
        self._loaded = None
        return pruner

    def _prepare(self, pl_module: pl.LightningModule) -> InPlacePruner:
        fold_former_masks(pl_module)
        pruner = InPlacePruner(pl_module, self.config)
        with warnings.catch_warnings():
            if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
                warnings.simplefilter("ignore", PreparationWarning)
            pruner.prepare(
                _example_inputs(pl_module) if self.follow_calls else None,
                state_dict=self._loaded,
                masks_from=self.masks_from,
            )
        if self._loaded is None:
            self._steps_seen, self._steps = 0, OptimizerSteps()
            self._beginning = Beginning()
        return pruner

    def _attach(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruner: InPlacePruner
    ) -> None:
        self._steps.attach(
            trainer.optimizers, (each.original for each in pruned_tensors(pl_module))
        )
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        pruner.attach(*trainer.optimizers, scaler=scaler)

    def _release(self) -> None:
        self._steps.detach()
        if self.pruner is not None:
            self.pruner.detach()

    def _restore(self) -> None:
        self._hooks.restore()
        self._averages.release()

    def _let_go(self) -> None:
        if self.pruner is not None:
            self.pruner.release()
            self.pruner = None

    def _mask_averages(self, trainer: pl.Trainer) -> None:
        if self.pruner is not None:
            self._averages.mask(trainer, self.pruner)

    def _advance_to(self, reading: int, trainer: pl.Trainer) -> None:
        if self.pruner is not None and self.pruner.advance_to(reading):
            check_masks(trainer, self.pruner.model, f"at {self.interval} {reading}")

    def _warn_below_target(self) -> None:
        if self.pruner is not None:
            for sentence in shortfalls(self.pruner, schedules_of(self.config), self.interval):
                rank_zero_warn(sentence)


def _example_inputs(pl_module: pl.LightningModule) -> Any:
    """Return the inputs of the forward pass that is traced."""
    if pl_module.example_input_array is None:
        raise PruningError(
            "follow_calls needs an input to follow, and the module's example_input_array is "
            "None; set it in the module's constructor"
        )
    return pl_module.example_input_array
