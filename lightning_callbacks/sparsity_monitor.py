"""SparsityMonitor: counted zeros for loggers, a CSV file and the progress bar."""

import csv
from pathlib import Path
from typing import Any

from coreai_opt.pruning.model.stats import SparsityReport, count_sparsity
from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning_internals import logging_step

COLUMNS = [
    "step",
    "epoch",
    "layer",
    "elements",
    "nonzero",
    "sparsity",
    "scheduled",
    "target",
    "regrown",
]


class SparsityMonitor(pl.Callback):
    """Reports achieved and target sparsity, global and per layer.

    Achieved means counted zeros of the weights that the forward pass uses, ``scheduled`` what the
    schedule asks for now, ``target`` what it is to arrive at, ``regrown`` how many pruned weights
    have come back so far. The zeros are counted when training
    starts, every ``every_n_steps`` steps and at the end of each epoch; a step in between costs
    nothing.

    It writes ``sparsity/achieved``, ``sparsity/scheduled``, ``sparsity/target``,
    ``sparsity/regrown`` and ``sparsity/<layer>`` to every logger, ``sparsity`` to the progress bar,
    and one row for each layer (and one named ``total``) to the CSV file. A model without masks is
    counted as well: a dense control has a curve too.

    Args:
        csv_path: the file, relative to the trainer's ``default_root_dir``; None = no file.
        every_n_steps: optimizer steps between two counts, >= 1; None = the trainer's
            ``log_every_n_steps``.

    Attributes:
        report: the last count, None before the first.
    """

    def __init__(
        self, csv_path: str | Path | None = "sparsity.csv", every_n_steps: int | None = None
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; allowed: 1 or more")
        self.csv_path = csv_path
        self.every_n_steps = every_n_steps
        self.report: SparsityReport | None = None
        self._counted_at = -1
        self._rows = 0
        self._is_resumed = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._is_resumed = False  # a checkpoint may have been loaded for a validation

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_resumed:
            # Counted before, and what was counted after the checkpoint will be counted again.
            self._is_resumed = False
            self.report = count_sparsity(pl_module)
            self._cut(trainer)
        else:
            self._rows = self._rows_of_file(trainer)
            self._count(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if self._is_due(trainer):
            self._count(trainer, pl_module)
            self._show(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"counted_at": self._counted_at, "rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A trial that another callback runs (LearningRateFinder) puts back what is there.
        if state_dict != self.state_dict():
            self._counted_at, self._rows = state_dict["counted_at"], state_dict["rows"]
            self._is_resumed = True

    def _show(self, pl_module: pl.LightningModule) -> None:
        # Masks are the same on every rank: there is nothing to synchronise.
        assert self.report is not None
        achieved = self.report.achieved
        # Lightning asks for the batch size where the module fetches its batches itself.
        kwargs: dict[str, Any] = {"prog_bar": True, "logger": False, "batch_size": 1}
        pl_module.log("sparsity", achieved, rank_zero_only=True, **kwargs)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        cadence: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        every = self.every_n_steps or max(cadence, 1)
        step = trainer.global_step
        return step != self._counted_at and step % every == 0

    def _count(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        report = count_sparsity(pl_module)
        step = trainer.global_step
        if report != self.report or step != self._counted_at:
            self.report, self._counted_at = report, step
            self._log(trainer, report)
            self._write(trainer, report)

    def _log(self, trainer: pl.Trainer, report: SparsityReport) -> None:
        totals = ("achieved", "scheduled", "target", "regrown")
        metrics = {f"sparsity/{name}": getattr(report, name) for name in totals}
        metrics |= {f"sparsity/{layer.name}": layer.sparsity for layer in report.layers}
        step = logging_step(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)

    def _write(self, trainer: pl.Trainer, report: SparsityReport) -> None:
        path = self._path(trainer)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        rows = _rows(report, trainer.global_step, trainer.current_epoch)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerows(rows)
        self._rows += len(rows)

    def _cut(self, trainer: pl.Trainer) -> None:
        path = self._path(trainer)
        if path is not None and path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            beside = path.with_name(f".{path.name}")
            beside.write_bytes(b"".join(lines[: 1 + self._rows]))
            beside.replace(path)
        self._rows = self._rows_of_file(trainer)

    def _rows_of_file(self, trainer: pl.Trainer) -> int:
        """Return how many rows are there already: those of an earlier run stay."""
        path = self._path(trainer)
        if path is None or not path.exists():
            return 0
        with path.open("rb") as file:
            return max(sum(1 for _ in file) - 1, 0)

    def _path(self, trainer: pl.Trainer) -> Path | None:
        if self.csv_path is None or not trainer.is_global_zero:
            return None
        return Path(trainer.default_root_dir, self.csv_path)


def _rows(report: SparsityReport, step: int, epoch: int) -> list[list[Any]]:
    total = [report.achieved, report.scheduled, report.target, report.regrown]
    rows: list[list[Any]] = [[step, epoch, "total", report.elements, report.nonzero, *total]]
    for layer in report.layers:
        shares = [layer.sparsity, layer.scheduled, layer.target, layer.regrown]
        rows.append([step, epoch, layer.name, layer.elements, layer.nonzero, *shares])
    return rows
