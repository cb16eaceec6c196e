"""Starting from a warm-up: a job takes over what another run has trained and written by then.

Its checkpoint is that of a run with masks that are all ones. The rows that are taken over hold the
target of the run that trained them, and get that of this one.
"""

import csv
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from coreai_opt.distributed.handoff import await_warmup, publish_warmup
from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.runs.context import RunContext
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.processes import is_main_process, launch_id
from coreai_opt.warmup.key import warmup_key
from coreai_opt.warmup.make import pruning_of
from coreai_opt.warmup.run import WarmupRun
from lightning_callbacks import SparsityMonitor
from lightning_callbacks._resume.logger_rewind import change_rows

# Of a ModelCheckpoint's state: the files that it has kept.
KEPT = ("best_model_path", "last_model_path")


class WarmupGoneError(RuntimeError):
    """A warm-up run was begun anew while a job started from it."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"another command trains the dense warm-up in {root} again, and began while this run "
            "started from it; the same sweep repeats this run"
        )


def choose_warmup(
    context: RunContext, trainer: pl.Trainer, model: pl.LightningModule
) -> WarmupRun | None:
    """Return the warm-up run that a job starts from, None where it trains its own warm-up.

    Rank 0 decides, and the record says what it has decided.

    Args:
        context: the run; one that goes on from a checkpoint has its warm-up behind it.
        trainer: with its callbacks.
        model: what is trained, without masks yet.

    Raises:
        OSError: another rank than 0 cannot read the warm-up that rank 0 starts from.
    """
    environment, paths = context.environment, context.paths
    folder = "" if environment is None else environment.warmup
    if context.start.checkpoint is not None or not folder:
        return None
    launch = launch_id(os.environ) if trainer.world_size > 1 else None
    if not is_main_process():
        folder = await_warmup(paths, launch) if launch is not None else _recorded(paths)
        return _of_rank_0(paths.root.parent / folder) if folder else None
    is_pruned = pruning_of(trainer, model) is not None
    warmup = _usable(context, paths.root.parent / folder, is_pruned)
    if warmup is not None:
        facts = warmup.facts
        taken = {"key": facts["key"], "steps": facts["steps"], "seconds_saved": facts["seconds"]}
        context.record.update(warmup={**taken, "run": folder})
        context.record.save()  # now: other ranks read it, and a run that is killed writes no more
        context.progress.step = facts["steps"]
    if launch is not None:
        publish_warmup(paths, launch, "" if warmup is None else folder)
    return warmup


def _of_rank_0(root: Path) -> WarmupRun:
    warmup = WarmupRun.at(root)
    if warmup is None:
        raise OSError(
            f"rank 0 starts from the dense warm-up in {root}; this process cannot read it"
        )
    return warmup


def _usable(context: RunContext, root: Path, is_pruned: bool) -> WarmupRun | None:
    warmup = WarmupRun.at(root)
    problem: str | None = "it cannot be read"
    if warmup is not None:
        problem = _problem(warmup, context.record.content, is_pruned)
    if warmup is None or problem is not None:
        print(f"the dense warm-up in {root} is not used: {problem}; this run trains its own")
        return None
    saved = f"{warmup.facts['seconds']:.1f} s saved"
    print(f"dense warm-up: {warmup.facts['steps']} steps from {root} ({saved})")
    return warmup


def _problem(warmup: WarmupRun, record: Mapping[str, Any], is_pruned: bool) -> str | None:
    """Return why a run does not start from a warm-up, in one clause; None where it does."""
    if (problem := warmup.problem(record)) is not None:
        return problem
    if not is_pruned:
        return "this run prunes nothing, so that its best epoch may lie before the ramp"
    if warmup_key(record["config"]) != warmup.facts.get("key"):
        return "the config of this run has come out otherwise than planned"
    theirs = warmup.run.record
    for name in ("device", "threads"):
        if theirs.get(name) != record[name]:
            return f"{name}: {theirs.get(name)}, and here {record[name]}"
    return None


def _recorded(paths: RunPaths) -> str:
    run = ExistingRun.at(paths.root)
    taken = None if run is None else run.record.get("warmup")
    return str(taken["run"]) if taken else ""


class StartFromWarmup(pl.Callback):
    """Makes a run that starts from a warm-up the run that would have trained it itself.

    Args:
        context: the run.
        warmup: the warm-up run.

    Raises:
        WarmupGoneError: what belongs to it can be read no more, or only in part.
    """

    def __init__(self, context: RunContext, warmup: WarmupRun) -> None:
        self._context, self._source = context, warmup.run.paths
        self._run_id = warmup.run.record.get("run_id")
        self._old, self._new = str(warmup.facts["root"]), os.path.realpath(context.paths.root)
        self._kept: set[str] = set()
        self._is_first = True

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # The files that were kept during the warm-up say the same when one is evaluated.
        states = checkpoint["callbacks"]
        for key, state in states.items():
            if isinstance(state, Mapping) and "dirpath" in state:
                self._kept |= set(_files_of(state, Path(self._old)))
                states[key] = _relocated(state, self._old, self._new)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not (self._is_first and trainer.is_global_zero):
            return
        self._is_first = False
        for name in self._kept:
            if (self._source.root / name).is_file():
                file = self._context.paths.root / name
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._source.root / name, file)
        report = count_sparsity(pl_module)
        targets = {"total": report.target, **{one.name: one.target for one in report.layers}}
        change_rows(trainer, lambda row: _with_target(row, "sparsity/target", report.target))
        self._take_table(trainer, targets)
        now = WarmupRun.at(self._source.root)  # last: all of it is read by now
        if now is None or now.run.record.get("run_id") != self._run_id:
            raise WarmupGoneError(self._source.root)

    def _take_table(self, trainer: pl.Trainer, targets: Mapping[str, float | None]) -> None:
        path = _table_of_sparsity(trainer)
        if path is None or not path.is_relative_to(self._context.paths.root):
            return
        source = self._source.root / path.relative_to(self._context.paths.root)
        if not source.is_file():
            return
        with (
            source.open(newline="", encoding="utf-8") as old,
            path.open("w", newline="", encoding="utf-8") as new,
        ):
            table = csv.DictReader(old)
            writer = csv.DictWriter(new, list(table.fieldnames or []))
            writer.writeheader()
            for row in table:
                writer.writerow(_with_target(row, "target", targets.get(row["layer"])))


def _files_of(state: Mapping[str, Any], root: Path) -> Iterator[str]:
    """Yield the files that a callback has kept, by their place in the run."""
    for path in {*(state.get("best_k_models") or ()), *(state.get(name) for name in KEPT)}:
        if path and Path(os.path.realpath(path)).is_relative_to(root):
            yield os.path.relpath(os.path.realpath(path), root)


def _table_of_sparsity(trainer: pl.Trainer) -> Path | None:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, SparsityMonitor) and callback.csv_path is not None:
            return Path(trainer.default_root_dir, callback.csv_path)
    return None


def _with_target(row: dict[str, str], column: str, target: float | None) -> dict[str, str]:
    if row.get(column):
        row[column] = "" if target is None else str(target)
    return row


def _relocated(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value[len(old) :] if Path(value).is_relative_to(old) else value
    if isinstance(value, dict):
        items = value.items()
        return {_relocated(key, old, new): _relocated(item, old, new) for key, item in items}
    return value
