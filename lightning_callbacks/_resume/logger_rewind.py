"""Logger rewind: log files go back to their content at a checkpoint."""

import csv
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning.roots import ROOTS
from lightning_callbacks._lightning_internals import event_file_name

KINDS = {"CSVLogger": "csv", "TensorBoardLogger": "tensorboard"}


def log_positions(trainer: pl.Trainer) -> list[dict[str, Any]]:
    """Return for each logger what its files hold now; empty for kinds that are not known.

    A ``CSVLogger`` deletes its file when it is made anew, so that the rows themselves are kept;
    of TensorBoard's event files, which only grow, the sizes.
    """
    if not trainer.is_global_zero:
        return []
    return [_position(logger) for logger in trainer.loggers]


def rewind_logs(trainer: pl.Trainer, positions: list[dict[str, Any]]) -> None:
    """Give the files of each logger back what they held; what came later is cut off."""
    if not trainer.is_global_zero:
        return
    tables = iter([one for one in positions if one.get("kind") == "csv"])
    events = iter([one for one in positions if one.get("kind") == "tensorboard"])
    for logger in _loggers(trainer):
        if _kind(logger) == "csv" and (position := next(tables, None)) is not None:
            _rewind_csv(logger, position)
        elif _kind(logger) == "tensorboard" and (position := next(events, None)) is not None:
            _rewind_events(logger, position)


def change_rows(trainer: pl.Trainer, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Change each row of metrics.csv, and tell the loggers that know nothing of the rows.

    For a run that begins with the rows of another one: loggers other than ``CSVLogger`` get them
    one by one, as they were logged.
    """
    if not trainer.is_global_zero:
        return
    rows: list[dict[str, str]] = []
    for logger in _loggers(trainer):
        if _kind(logger) == "csv":
            rows = _changed(logger.experiment, change)
    for logger in _loggers(trainer):
        if _kind(logger) != "csv":
            for row in rows:
                values = {key: float(text) for key, text in row.items() if text and key != "step"}
                logger.log_metrics(values, step=int(row["step"]))


def _changed(
    writer: Any, change: Callable[[dict[str, str]], dict[str, str]]
) -> list[dict[str, str]]:
    path = Path(writer.metrics_file_path)
    if not path.exists():
        return []  # nothing was logged yet
    with path.open(newline="", encoding="utf-8") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, writer.metrics_keys)
        table.writeheader()
        table.writerows(rows)
    return rows


def keep_hyperparameters(trainer: pl.Trainer, hooks: MethodPatches) -> None:
    """Keep TensorBoard from writing the hyperparameters, and a metric with them, a second time."""
    for logger in _loggers(trainer):
        if _kind(logger) == "tensorboard":
            hooks.instead(logger, "log_hyperparams", lambda *args, **kwargs: None)


def _loggers(trainer: pl.Trainer) -> list[Any]:
    return list(trainer.loggers)


def _kind(logger: Any) -> str | None:
    """Return which of the known loggers it is, or is derived from; None = another."""
    for ancestor in type(logger).__mro__:
        if ancestor.__module__.startswith(ROOTS) and ancestor.__name__ in KINDS:
            return KINDS[ancestor.__name__]
    return None


def _position(logger: Any) -> dict[str, Any]:
    if _kind(logger) == "csv":
        logger.save()
        path = Path(logger.experiment.metrics_file_path)
        text = path.read_bytes() if path.exists() else b""
        return {"kind": "csv", "text": zlib.compress(text, 1)}
    if _kind(logger) == "tensorboard":
        logger.save()
        files = _event_files(logger)
        return {"kind": "tensorboard", "sizes": {file.name: file.stat().st_size for file in files}}
    return {}


def _rewind_csv(logger: pl.loggers.CSVLogger, position: dict[str, Any]) -> None:
    writer: Any = logger.experiment
    text = zlib.decompress(position["text"])
    path = Path(writer.metrics_file_path)
    writer.metrics = []
    if not text:
        path.unlink(missing_ok=True)
        return
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(text)
    beside.replace(path)
    writer.metrics_keys = next(csv.reader(io.StringIO(text.decode("utf-8"))))


def _rewind_events(logger: pl.loggers.TensorBoardLogger, position: dict[str, Any]) -> None:
    # Lightning has begun a new file already, with nothing in it but its header.
    sizes = position["sizes"]
    known = [file for file in _event_files(logger) if file.name in sizes]
    ours = event_file_name(logger.experiment)
    for file in _event_files(logger):
        if file not in known and file.name != ours:
            file.unlink()
    for file in known:
        if file.stat().st_size > sizes[file.name]:
            with file.open("rb+") as events:
                events.truncate(sizes[file.name])


def _event_files(logger: pl.loggers.TensorBoardLogger) -> list[Path]:
    return sorted(Path(logger.log_dir).glob("events.out.tfevents.*"))
