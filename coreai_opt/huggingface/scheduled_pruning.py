"""Pruning callback for transformers.Trainer."""

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from coreai_opt.huggingface._checkpoints import (
    MASKS_FILE,
    Mark,
    MasksLostError,
    folder_of,
    masks_of,
    write_masks,
)
from coreai_opt.pruning import InPlacePruner, MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.config.given import config_of, schedules_of
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.errors import PreparationWarning
from coreai_opt.pruning.in_place.pruner import MasksFrom
from coreai_opt.pruning.masks.agreement import compare_masks
from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.saving.folding import fold_former_masks
from coreai_opt.pruning.scheduling.optimizer_steps import OptimizerSteps
from coreai_opt.pruning.scheduling.ramps import (
    Interval,
    RampTooLongError,
    check_choices,
    ends_of,
    shortfalls,
)

logger = logging.getLogger(__name__)


class ScheduledPruningCallback(TrainerCallback):
    """Prunes the model along a schedule while ``transformers.Trainer`` trains it.

    The model stays as it is: its weights are masked in place, and nothing else of it changes. What
    is pruned is 0 in every forward pass, and gradients are masked before they are clipped. Its
    checkpoints hold the masked weights under its own names, and ``from_pretrained`` reads them
    without this package.

    The schedule is asked before the first batch for step 0, and after the k-th optimizer step for
    k; with ``interval="epoch"`` k counts epochs finished, with ``"percent"`` hundredths of the
    training. Steps that a gradient scaler skips do not count as steps.

    Masks (one bit an element) and the dense values of what is pruned are in ``coreai_pruning.pt``
    in the folder of each checkpoint. ``Trainer.train(resume_from_checkpoint=...)`` goes on from
    there exactly. A checkpoint of a training without this callback has no mark of it in
    ``trainer_state.json``: its weights and its position are taken, and the schedule begins there.

    While the target is not reached no checkpoint counts as the best one, and none that was chosen
    before: ``load_best_model_at_end`` loads a model at the target, and ``EarlyStoppingCallback``
    begins to wait there. With ``save_strategy="best"`` each evaluation until then is saved.

    With several processes (DDP) the masks of all of them are compared whenever they change. A
    second ``train`` of the same model without a checkpoint keeps masks and clock.

    Args:
        schedule: a schedule, a dict with its ``type``, or any object with ``compute_sparsity``;
            None = the schedules in ``config``, and all at once where that has none.
        target_sparsity: the sparsity of every prunable weight at the end, in [0, 1]; instead of
            ``config``.
        config: which weights are pruned how far, and which stay dense, a ``MagnitudePrunerConfig``
            or its dict.
        interval: what the schedule counts: ``"step"``, ``"epoch"`` or ``"percent"``.
        masks_from: ``"zeros"`` = the zeros that the weights have when the training begins are their
            masks: kept for good without a schedule, and where a schedule begins otherwise (see
            ``InPlacePruner.prepare``). Of a checkpoint that has lost its masks, its zeros.

    Attributes:
        pruner: holds masks and dense values; None before the first training.

    Raises:
        ValueError: a bad value, an object without ``compute_sparsity``, or both of
            ``target_sparsity`` and ``config``.

    Example:
        >>> from coreai_opt.huggingface import ScheduledPruningCallback
        >>> from coreai_opt.pruning.config import PolynomialDecaySchedule
        >>> ramp = PolynomialDecaySchedule(total_iters=60, begin_step=10)
        >>> callback = ScheduledPruningCallback(ramp, target_sparsity=0.9, interval="percent")
    """

    def __init__(
        self,
        schedule: SparsitySchedule | Mapping[str, Any] | None = None,
        target_sparsity: float | None = None,
        config: MagnitudePrunerConfig | Mapping[str, Any] | None = None,
        interval: Interval = "step",
        masks_from: MasksFrom = "schedule",
    ) -> None:
        check_choices(interval, masks_from)
        self.interval = interval
        self.masks_from = masks_from
        self.config = config_of(schedule, target_sparsity, config)
        self.pruner: InPlacePruner | None = None
        self._steps = OptimizerSteps()
        self._clock_before = self._epochs_before = self._beginning = 0
        self._mark: Mark | None = None
        self._is_gate_open = False

    @property
    def clock(self) -> int:
        """What the schedule's clock shows, in units of ``interval``."""
        return 0 if self.pruner is None else self.pruner.step_count

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        # Weights, optimizer and state of a checkpoint have been loaded.
        refuse_sharding(args, model)
        self._release()
        mark = Mark.of(state)
        if not self._is_prepared(model):
            self._refuse_another(model, mark, args, state)
        goes_on = mark is None and state.global_step == 0 and self._is_prepared(model)
        if mark is not None:
            self._clock_before, self._beginning = mark.clock, mark.beginning
        elif goes_on:
            self._clock_before = self.clock
        else:
            self._clock_before, self._beginning = 0, state.global_step
        self._epochs_before = int(state.epoch or 0)
        self._refuse_long_ramps(self._clock_before + self._left(args, state, train_dataloader))
        if not goes_on:
            self._prepare(model, args, state, mark)
        pruner = self._prepared()
        self._steps = OptimizerSteps()
        self._steps.attach([optimizer], (each.original for each in pruned_tensors(model)))
        pruner.attach(optimizer, scaler=getattr(optimizer, "scaler", None))
        self._compare("when the training begins")
        # What a dense training has found best is not the best pruned model.
        self._is_gate_open = mark is not None and pruner.at_target()
        self._note(args, state)

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._prepared().mask_weights()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # All that a checkpoint of this step is to have, of the end of an epoch as well: no hook is
        # called for that when the training goes on from it.
        self._advance_to(self._reading(state, int(state.epoch)))
        self._note(args, state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # An epoch may have been cut short, but for the one in which the training ends.
        finished = int(state.epoch) if control.should_training_stop else math.ceil(state.epoch)
        self._advance_to(self._reading(state, finished))
        self._prepared().check_weights()
        self._note(args, state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        mark = self._mark
        if args.should_save and mark is not None:
            folder = folder_of(mark, args, state.global_step)
            if folder is None:
                warnings.warn(
                    f"the masks of step {state.global_step} are not saved: there is no folder of "
                    f"its checkpoint in {args.output_dir!r}, and no training can go on from it",
                    stacklevel=2,
                )
            else:
                write_masks(folder, mark, self._prepared().state_dict())
        if _is_distributed():
            torch.distributed.barrier()  # another process may be the first to read it
        self._choose_no_best_below_target(state)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        **kwargs: Any,
    ) -> None:
        pruner = self._prepared()
        self._release()
        best = state.best_model_checkpoint if args.load_best_model_at_end else None
        if best is None:
            # An adapter may have been merged into a weight that no optimizer holds.
            pruner.mask_weights(also_data=True)
            found = shortfalls(pruner, schedules_of(self.config), self.interval)
        else:
            found = self._load_best_masks(Path(best), pruner)
        if state.is_world_process_zero:
            for sentence in found:
                warnings.warn(sentence, stacklevel=2)

    def _load_best_masks(self, folder: Path, pruner: InPlacePruner) -> list[str]:
        """Take the masks of the best model, whose weights have been loaded; say what it lacks."""
        mark = Mark.in_folder(folder)
        report = count_sparsity(pruner.model)
        if mark is None:
            pruner.release()
            why = f", which has no masks ({MASKS_FILE})"
        else:
            pruner.load_state_dict(masks_of(mark, folder, 0, str(folder.parent)))
            self._beginning = mark.beginning
            if pruner.at_target():
                return []
            why = ""
        return [
            f"the best model was loaded from {folder}{why}, and is below the target sparsity: "
            f"{report.achieved:.4f} of {report.target:.4f}"
        ]

    def _prepare(
        self, model: nn.Module, args: TrainingArguments, state: TrainerState, mark: Mark | None
    ) -> None:
        if self.pruner is not None:
            self.pruner.release()
        fold_former_masks(model)
        masks = None if mark is None else self._masks_of(mark, args, state)
        pruner = InPlacePruner(model, self.config)
        with warnings.catch_warnings():
            if not state.is_world_process_zero:
                warnings.simplefilter("ignore", PreparationWarning)
            pruner.prepare(state_dict=masks, masks_from=self.masks_from)
        self.pruner = pruner
        if masks is None:
            pruner.advance_to(self._clock_before)
        if mark is None and state.global_step and state.is_world_process_zero:
            logger.warning(
                "the checkpoint of step %s is of a training without pruning: its weights are "
                "taken, and pruning begins now, at the beginning of its schedule",
                state.global_step,
            )

    def _refuse_another(
        self, model: nn.Module, mark: Mark | None, args: TrainingArguments, state: TrainerState
    ) -> None:
        """Refuse a second callback: masks are there, with a mark that no checkpoint has yet."""
        is_masked = any(True for _ in pruned_tensors(model))
        if is_masked and mark is not None and folder_of(mark, args, state.global_step) is None:
            name = type(self).__name__
            raise PruningError(
                f"two {name} among the callbacks would both prune the model; allowed: one of "
                "them, and config= for layers that differ"
            )

    def _masks_of(
        self, mark: Mark, args: TrainingArguments, state: TrainerState
    ) -> Mapping[str, Any] | None:
        step = state.global_step
        try:
            return masks_of(mark, folder_of(mark, args, step), step, args.output_dir)
        except MasksLostError as error:
            if self.masks_from != "zeros":
                raise
            if state.is_world_process_zero:
                logger.warning("the zeros of the weights are taken as their masks: %s", error)
            return None

    def _left(self, args: TrainingArguments, state: TrainerState, train_dataloader: Any) -> float:
        """Return how far the clock can come until the training ends."""
        if self.interval == "percent":
            return 100 - self._clock_before
        if self.interval == "step":
            return int(state.max_steps - state.global_step)
        if not has_length(train_dataloader):
            return math.inf
        steps_an_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
        return int(state.max_steps // max(steps_an_epoch, 1)) - self._epochs_before

    def _refuse_long_ramps(self, total: float) -> None:
        for end, what in ends_of(schedules_of(self.config)):
            if end > total:
                raise RampTooLongError(end, int(total), self.interval, what)

    def _reading(self, state: TrainerState, epochs: int) -> int:
        if self.interval == "step":
            return self._clock_before + self._steps.finished
        if self.interval == "epoch":
            return self._clock_before + epochs - self._epochs_before
        length = max(state.max_steps - self._beginning, 1)
        return int(min(100 * (state.global_step - self._beginning) // length, 100))

    def _advance_to(self, reading: int) -> None:
        if self._prepared().advance_to(reading):
            self._compare(f"at {self.interval} {reading}")

    def _note(self, args: TrainingArguments, state: TrainerState) -> None:
        """Have the next checkpoint carry a mark of these masks; choose no best one below target."""
        self._mark = Mark.new(self.clock, self._beginning, args.output_dir)
        self._mark.put_into(state)
        self._choose_no_best_below_target(state)

    def _choose_no_best_below_target(self, state: TrainerState) -> None:
        if not self._is_gate_open:
            self._is_gate_open = self._prepared().at_target()
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None

    def _compare(self, when: str) -> None:
        if _is_distributed():
            model = self._prepared().model
            compare_masks(model, when, next(model.parameters()).device)

    def _is_prepared(self, model: nn.Module) -> bool:
        return self.pruner is not None and self.pruner.model is model and self.pruner.is_prepared

    def _prepared(self) -> InPlacePruner:
        if self.pruner is None:
            raise RuntimeError("no training has begun; allowed: a callback that Trainer calls")
        return self.pruner

    def _release(self) -> None:
        self._steps.detach()
        if self.pruner is not None:
            self.pruner.detach()


def refuse_sharding(args: TrainingArguments, model: nn.Module) -> None:
    """Refuse what gives a process a part of a tensor."""
    found = [name for name in ("deepspeed", "fsdp") if getattr(args, name, None)]
    kinds = {type(module).__name__ for module in model.modules()}
    kinds |= {type(parameter).__name__ for parameter in model.parameters()}
    found += sorted(kinds & {"DTensor", "FullyShardedDataParallel"})
    if found:
        raise PruningError(
            f"{found[0]} shards the weights, and a mask needs the whole tensor; allowed: one "
            "device, or DDP"
        )


def _is_distributed() -> bool:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and torch.distributed.get_world_size() > 1
