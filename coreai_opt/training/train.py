"""Training of a run: fit, choose a checkpoint, validate, test, export."""

import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.model_helpers import is_overridden

from coreai_opt.config.errors import ConfigError
from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.saving.folding import fold_masks
from coreai_opt.runs.context import RunContext
from coreai_opt.runs.data_files import data_files
from coreai_opt.runs.outcome import sparsity_facts
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.run_record import Progress
from coreai_opt.runs.signals import Interruptions
from coreai_opt.training.build import Objects
from coreai_opt.training.checkpoint_content import PlainHyperparameters, refuse_foreign
from coreai_opt.training.deploy_run import deployed_at_the_end
from coreai_opt.training.final_model import FinalValidation, checkpoints_of
from coreai_opt.training.operations_count import ExampleBatch, count_operations
from coreai_opt.warmup.make import MakeWarmup, WarmupEnded
from coreai_opt.warmup.run import WarmupNotPossibleError
from coreai_opt.warmup.start import StartFromWarmup, choose_warmup
from lightning_callbacks import ResumableCheckpoint
from lightning_callbacks._lightning_internals import drop_sigterm


class _ProgressCallback(pl.Callback):
    """Says how far the training is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = float(trainer.estimated_stepping_batches)
        self._progress.total_steps = int(total) if 0 < total < math.inf else None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._progress.step = trainer.global_step


class _ObjectiveCallback(pl.Callback):
    """Ends a run whose objective nobody logs, at the end of the first epoch that could have."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        may_come = trainer.enable_validation and not self._validated
        if may_come or self._name in trainer.callback_metrics:
            return
        logged = sorted(_metrics(trainer))
        hint = nearest(self._name, logged) if logged else "the model logs none"
        name = "objective.name"
        raise ConfigError.of(name, f"{name}={self._name}: no such metric was logged; {hint}")


class _SignalCallback(pl.Callback):
    """Puts the run's signal handlers back after Lightning has put its own in their place."""

    def __init__(self, interruptions: Interruptions) -> None:
        self._interruptions = interruptions

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Processes that Lightning has started for other ranks know of a signal only by this one.
        self._interruptions.forward = getattr(trainer.strategy.launcher, "kill", None)
        self._interruptions.install()
        # What has arrived until now waits for the step boundary as well.
        drop_sigterm(trainer)


def train(config: Mapping[str, Any], objects: Objects, session: RunContext) -> float | None:
    """Fit, then measure and export the best checkpoint at target sparsity.

    Args:
        config: the resolved config.
        objects: what is made of it.
        session: the process at work on the run.

    Returns:
        The objective at that checkpoint, None when no metric of that name was logged; None as well
        of a warm-up run, which ends where its first mask would be made.
    """
    trainer, model, paths, record = objects.trainer, objects.model, session.paths, session.record
    record.update(threads=torch.get_num_threads(), device=_device(trainer))
    if session.start.checkpoint is not None:
        record.content["resumed_at"].append(session.start.step)
    record.save()  # now: a run that is killed writes nothing more
    if _fit(config, objects, session):
        record.update(training=_training(trainer))
        return None
    files = data_files(record.content["config"], objects.data)  # now: a first run has fetched them
    record.update(training=_training(trainer), data={"files": files})
    metrics = {f"last/{name}": value for name, value in _metrics(trainer).items()}
    best, last = checkpoints_of(trainer)
    metrics |= _evaluate(objects, best or last)
    report = count_sparsity(model)
    parameters = _export(objects, paths)
    name, mode = config["objective"]["name"], config["objective"]["mode"]
    value = metrics.get(name, metrics.get(f"last/{name}"))
    operations = count_operations(trainer, model)  # last: nothing that is kept comes after
    if trainer.is_global_zero:
        record.update(deploy=deployed_at_the_end(paths, record.content["config"]))
    record.update(
        objective={"name": name, "mode": mode, "value": value},
        metrics=metrics,
        sparsity=sparsity_facts(report),
        parameters=parameters,
        operations=operations,
        checkpoints={
            "best": best and paths.relative(best),
            "last": last and paths.relative(last),
        },
    )
    return value


def _fit(config: Mapping[str, Any], objects: Objects, session: RunContext) -> bool:
    """Train, and return whether that has ended where a warm-up does."""
    trainer, checkpoint = objects.trainer, session.start.checkpoint
    if checkpoint is not None:
        refuse_foreign(checkpoint, "resume")
    making = None
    if session.record.is_warmup:
        making = MakeWarmup(config, session, trainer, objects.model)
    taken = choose_warmup(session, trainer, objects.model)
    pending = session.interruptions.pending
    resumable = ResumableCheckpoint(
        session.paths.resume,
        **config["checkpoint"],
        interruption=pending if making is None else making.interruption(pending),
    )
    of_warmup = [
        *([making] if making else []),
        *([StartFromWarmup(session, taken)] if taken else []),
    ]
    _add_callbacks(config, trainer, session, [resumable, *of_warmup])
    for logger in trainer.loggers:
        # TensorBoard would show them, and a metric that belongs to them, once more.
        if checkpoint is None or not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(config))
    if taken is not None and taken.checkpoint is not None:
        checkpoint = taken.checkpoint.path
    try:
        with session.interruptions.deferred():
            trainer.fit(
                objects.model, datamodule=objects.data, ckpt_path=checkpoint, weights_only=True
            )
    except WarmupEnded:
        if making is not None and trainer.is_global_zero:
            making.finish()
        return True
    if making is not None:
        raise WarmupNotPossibleError("the training ends before the warm-up does")
    return False


def _add_callbacks(
    config: Mapping[str, Any], trainer: pl.Trainer, session: RunContext, first: list[pl.Callback]
) -> None:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    # First: the classes that choose by the objective have an error of their own for its absence.
    callbacks[:0] = [
        *first,
        PlainHyperparameters(),
        _ObjectiveCallback(config["objective"]["name"]),
        _ProgressCallback(session.progress),
        ExampleBatch(),
        _SignalCallback(session.interruptions),
    ]
    callbacks.append(FinalValidation())


def _evaluate(objects: Objects, checkpoint: str | None) -> dict[str, float]:
    """Return the metrics of validation and test at a checkpoint, whose weights the model keeps.

    Without a checkpoint the model is measured as it is.
    """
    trainer, model, data = objects.trainer, objects.model, objects.data
    metrics: dict[str, float] = {}
    if checkpoint is not None:
        refuse_foreign(checkpoint, "callbacks")
    given: dict[str, Any] = {
        "datamodule": data,
        "ckpt_path": checkpoint,
        "verbose": False,
        "weights_only": True,
    }
    if is_overridden("validation_step", model):
        # Not another point on the curve of the training: it is a checkpoint of before.
        loggers, trainer.loggers = trainer.loggers, []
        trainer.validate(model, **given)
        trainer.loggers = loggers
        metrics |= _metrics(trainer)
    if is_overridden("test_step", model) and is_overridden("test_dataloader", data):
        trainer.test(model, **given)
        metrics |= _metrics(trainer)
    return metrics


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    named = trainer.callback_metrics.items()
    return {name: float(value) for name, value in named if name != "sparsity"}


def _export(objects: Objects, paths: RunPaths) -> dict[str, int]:
    """Write the weights with the masks folded in, and return how many there are."""
    if any(pruned_tensors(objects.model)):
        fold_masks(objects.model)
    parameters = list(objects.network.parameters())
    nonzero = sum(int(torch.count_nonzero(parameter)) for parameter in parameters)
    if objects.trainer.is_global_zero:
        state = {
            key: value.cpu() if isinstance(value, torch.Tensor) else value  # extra state is any
            for key, value in objects.network.state_dict().items()
        }
        beside = paths.weights.with_name(f".{paths.weights.name}")
        torch.save(state, beside)
        beside.replace(paths.weights)
    return {"total": sum(parameter.numel() for parameter in parameters), "nonzero": nonzero}


def _training(trainer: pl.Trainer) -> dict[str, Any]:
    batches = trainer.num_training_batches  # infinite for data without a length
    known = math.isfinite(batches)
    return {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "steps_per_epoch": math.ceil(batches / trainer.accumulate_grad_batches) if known else None,
    }


def _device(trainer: pl.Trainer) -> dict[str, str]:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return {"accelerator": "cuda", "name": torch.cuda.get_device_name(device)}
    return {"accelerator": device.type, "name": _processor()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
