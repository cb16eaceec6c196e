"""Launchers that write records as runs do, without training anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from coreai_opt.runs.run_record import Heartbeat, Progress, Record
from coreai_opt.sweep.folder import SweepJob
from coreai_opt.sweep.scheduler import Outcome

Action = Callable[[SweepJob], Any]


def begin(entry: SweepJob) -> Record:
    """Write what a run writes when it starts."""
    entry.paths.root.mkdir(parents=True, exist_ok=True)
    earlier = entry.earlier()
    before = None if earlier is None else earlier.record
    config, overrides = dict(entry.point.config), list(entry.point.overrides)
    key = entry.point.warmup_key
    record = Record(entry.paths, config, overrides, earlier=before, warmup_key=key)
    Heartbeat(entry.paths.progress, Progress(3, 10)).beat()
    return record


def complete(entry: SweepJob, value: float | None = 0.5) -> float | None:
    record = begin(entry)
    record.update(objective={"name": "val/accuracy", "mode": "max", "value": value})
    record.complete()
    return value


def fail(entry: SweepJob) -> None:
    error = ValueError("too hot")
    begin(entry).fail("failed", error)
    raise error


class Lost(BaseException):
    """Takes the launcher down, as a killed worker does."""


def lose(entry: SweepJob) -> None:
    begin(entry)
    raise Lost


@dataclass
class Launches:
    """A launcher that does to each entry, one after the other, what is asked of it.

    Attributes:
        actions: by the first override of a point; the rest completes.
        batches: the first overrides of what was launched.
    """

    actions: dict[str, Action] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)

    def __call__(self, entries: Sequence[SweepJob]) -> Sequence[JobReturn]:
        self.batches.append([entry.point.overrides[0] for entry in entries])
        returns = []
        for entry in entries:
            job = JobReturn()
            try:
                action = self.actions.get(entry.point.overrides[0], complete)
                job.return_value, job.status = action(entry), JobStatus.COMPLETED
            except Lost as error:
                raise RuntimeError("a worker was lost") from error
            except Exception as error:
                job.return_value, job.status = error, JobStatus.FAILED
            returns.append(job)
        return returns


@dataclass
class Told:
    """A listener that remembers."""

    ends: list[Outcome] = field(default_factory=list)
    waits: int = 0

    def launched(self, entries: Sequence[SweepJob]) -> None:
        pass

    def waiting(self, entries: Sequence[SweepJob]) -> None:
        self.waits += 1

    def ended(self, outcome: Outcome) -> None:
        self.ends.append(outcome)
