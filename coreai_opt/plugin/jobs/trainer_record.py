"""What a Lightning Trainer of a recorded run tells its record: metrics by stage, steps, zeros."""

import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.runs.outcome import sparsity_facts
from coreai_opt.runs.run_record import Progress
from coreai_opt.runs.values import RunValues, as_number

log = logging.getLogger(__name__)


@contextmanager
def _kept_from_the_app(what: str) -> Iterator[None]:
    """Let nothing that cannot be told of a training end it; a line says what the record lacks.

    Modules and Trainers may be of any make: parameters without a size yet, schedulers of batches.
    """
    try:
        yield
    except Exception as error:
        # No warning, which an app may have made an error.
        log.warning("the record lacks %s: %s: %s", what, type(error).__name__, error)


class RecordTrainer:
    """Tells the record of a run what its Trainers come to.

    Metrics are those that the module has logged for callbacks, by stage: ``fit``, ``validate``,
    ``test``, ``predict``; those of a second fit are ``fit-2``. Of a metric in several stages the
    last value counts in ``metrics``. In processes that a strategy spawns rank 0 leaves them for the
    process of the run.

    Args:
        values: of the run.
    """

    def __init__(self, values: RunValues) -> None:
        self._values, self._process = values, os.getpid()

    def __deepcopy__(self, memo: dict[int, Any]) -> "RecordTrainer":
        return self  # a Trainer that is copied is one of the run

    def __getstate__(self) -> dict[str, Any]:
        return {"_values": RunValues(Progress(), self._values.home), "_process": self._process}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        with _kept_from_the_app("the number of steps to come"):
            total = float(trainer.estimated_stepping_batches)
            self._values.progress.total_steps = int(total) if 0 < total < math.inf else None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self._values.progress.step = trainer.global_step

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        # Now: a run that is interrupted goes on with as many threads.
        self._values.facts |= {"threads": torch.get_num_threads(), "device": _device(trainer)}

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        metrics, facts = dict[str, float](), dict(self._values.facts)
        with _kept_from_the_app("what was logged"):
            metrics = _metrics(trainer)
        if stage == "fit":
            with _kept_from_the_app("steps and epochs"):
                facts["training"] = _training(trainer)
        with _kept_from_the_app("the parameters"):
            facts["parameters"] = _parameters(pl_module)
        with _kept_from_the_app("the sparsity"):
            if any(pruned_tensors(pl_module)):
                facts["sparsity"] = sparsity_facts(count_sparsity(pl_module))
        is_spawned = self._process != os.getpid()
        tell = self._values.leave if is_spawned else self._values.tell
        tell(str(getattr(trainer.state.fn, "value", trainer.state.fn)), metrics, facts)


class SignalsWait:
    """Lets a signal wait for the end of a step, where a checkpoint is written before the run ends.

    Args:
        values: of the run.
        drop: makes the Trainer not act on a SIGTERM itself.
    """

    def __init__(self, values: RunValues, drop: Callable[[Any], None]) -> None:
        self._interruptions, self._drop = values.interruptions, drop

    def __deepcopy__(self, memo: dict[int, Any]) -> "SignalsWait":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_interruptions": None}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._interruptions is not None:
            # Lightning has put its own handlers in their place.
            self._interruptions.forward = getattr(trainer.strategy.launcher, "kill", None)
            self._interruptions.install()
            self._interruptions.defer()
            self._drop(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._interruptions is not None:
            self._interruptions.stop_deferring()


def _metrics(trainer: Any) -> dict[str, float]:
    named = {name: as_number(value) for name, value in trainer.callback_metrics.items()}
    return {name: value for name, value in named.items() if value is not None}


def _training(trainer: Any) -> dict[str, Any]:
    batches = trainer.num_training_batches  # infinite for data without a length
    each = trainer.accumulate_grad_batches
    known = math.isfinite(batches)
    return {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "steps_per_epoch": math.ceil(batches / each) if known else None,
    }


def _parameters(module: Any) -> dict[str, int]:
    parameters = list(module.parameters())
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return {
        "total": sum(size for size, _ in sizes),
        "trainable": sum(size for size, is_trained in sizes if is_trained),
        "nonzero": sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
    }


def _device(trainer: Any) -> dict[str, str]:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return {"accelerator": "cuda", "name": torch.cuda.get_device_name(device)}
    return {"accelerator": device.type, "name": platform.processor() or platform.machine()}
