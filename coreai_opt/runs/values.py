"""What an app adds to the record of its run: ``record(accuracy=0.9)``."""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from coreai_opt.config.any_config import plain
from coreai_opt.runs.run_record import Progress, write_json
from coreai_opt.runs.signals import Interruptions

LEFT = ".told-"

# What is recorded in this process, the innermost last. Threads of a run are part of it.
_open: list["RunValues"] = []


class RunValues:
    """What is told of one run while its task is at work.

    Args:
        progress: how far its training is.
        home: folder of its record, in which processes that it spawns leave what they tell.
        interruptions: what ends it from outside, None where nobody handles signals.

    Attributes:
        metrics: numbers by name.
        values: anything else by name, in the form that JSON has for it.
        warnings: what of the run is not what was asked, a sentence each.
        ranks: returns what lets a Trainer of a root start other ranks, None = nothing does.
        is_resumable: its Trainers are to go on exactly, whatever the config says.
        warmup_end: reading of the schedule's clock at which the run ends, a warm-up; None = it is
            none.
        has_ended_warmup: whether it has ended there.
        by_stage: numbers by name, for each stage of a Lightning Trainer.
        facts: fields of the record.
    """

    def __init__(
        self, progress: Progress, home: Path, interruptions: Interruptions | None = None
    ) -> None:
        self.progress, self.home, self.interruptions = progress, home, interruptions
        self.stack = ExitStack()  # closed with the run
        self.ranks: Callable[[str], AbstractContextManager[None]] | None = None
        self.is_resumable = False
        self.trainers = 0  # that write checkpoints to go on from
        self.warmup_end: int | None = None
        self.has_ended_warmup = False
        self.metrics: dict[str, float] = {}
        self.values: dict[str, Any] = {}
        self.by_stage: dict[str, dict[str, float]] = {}
        self.facts: dict[str, Any] = {}
        self.warnings: list[str] = []

    def tell(self, stage: str, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> None:
        """Take what a Trainer came to in one of its stages.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.
            metrics: by name; the last value of each counts.
            facts: fields of the record.
        """
        number = sum(name.partition("-")[0] == stage for name in self.by_stage)
        self.by_stage[stage if not number else f"{stage}-{number + 1}"] = dict(metrics)
        self.metrics |= metrics
        self.facts |= facts

    def leave(self, stage: str, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> None:
        """Leave for the process of the run what ``tell`` takes: this one was spawned by it."""
        content = {"stage": stage, "metrics": metrics, "facts": facts}
        write_json(self.home / f"{LEFT}{time.time_ns()}-{os.getpid()}.json", content)

    def finish(self) -> None:
        """Take what spawned processes have left."""
        for file in sorted(self.home.glob(f"{LEFT}*.json")):
            self.tell(**json.loads(file.read_text(encoding="utf-8")))
            file.unlink()

    def start_ranks(self, root: str) -> None:
        """Let the Trainers of the run start other ranks; once, when the first one is made.

        Args:
            root: of Lightning, ``pytorch_lightning`` or ``lightning.pytorch``.
        """
        if self.ranks is not None:
            ranks, self.ranks = self.ranks, None
            self.stack.enter_context(ranks(root))

    def __enter__(self) -> "RunValues":
        _open.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _open.remove(self)

    def add(self, given: Mapping[str, Any]) -> None:
        """Take values of the app; of two for one name the last counts."""
        for name, value in given.items():
            number = as_number(value)
            if number is not None:
                self.metrics[name] = number
            else:
                self.values[name] = plain(value)


def open_values() -> RunValues | None:
    """Return what is recorded in this process just now, None where nothing is."""
    return _open[-1] if _open else None


def record(**values: Any) -> None:
    """Add values to the record of this run; outside of a recorded run nothing happens.

    Numbers, and tensors and arrays of one, are metrics: tables and charts compare runs by them.
    Anything else is kept as it is. Of two values for one name the last counts. In a training on
    several devices the values of rank 0 count.

    Args:
        **values: by name.

    Example:
        >>> from coreai_opt.runs import record
        >>> record(accuracy=0.93, latency_ms=4.1)
    """
    known = open_values()
    if known is not None:
        known.add(values)


def as_number(value: Any) -> float | None:
    """Return a number, also of a tensor or an array of one; None for anything else."""
    if isinstance(value, str | bytes | Mapping | list | tuple) or value is None:
        return None
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
