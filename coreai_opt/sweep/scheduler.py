"""Running the points of a sweep: each until it is done or has failed, whatever others do."""

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

from hydra.core.utils import JobReturn, JobStatus

from coreai_opt.config.errors import (
    ConfigError,
    RunBusyError,
    RunInterruptedError,
    SweepStoppedError,
    message_of,
    printable,
)
from coreai_opt.config.hydra_internals import raised_by
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.sweep.crashed import record_crash
from coreai_opt.sweep.folder import SweepJob
from coreai_opt.sweep.launchers.base import CrashedJob, JobEnd, NotLaunchedError
from coreai_opt.sweep.launchers.slurm_outcome import job_end
from lightning_callbacks._resume.checkpoint_files import checkpoint_files

ATTEMPTS = 3  # of a run whose process is lost before it gets further, in one command
POLL_S = 1.0
LOOKS_A_SECOND = 200  # at runs, so that a shared file system has time for others
CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
LONGEST_CAUSE = 300  # characters; the record has the rest
BUSY_S = 5.0  # until a run is tried again whose lock somebody held

Launch = Callable[[Sequence[SweepJob]], Sequence[JobEnd | None]]
WAITED_FOR = ("running", "queued")
End = Literal["completed", "failed", "interrupted", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """How a point of a sweep ended in one command.

    Attributes:
        entry: the point and its directory.
        end: ``stopped`` is one that was not begun, because another one had failed, or because the
            warm-up run that it waits for was interrupted.
        value: its objective, where it completed.
        cause: what went wrong, in one sentence.
        was_done: it had completed, or failed for good, before this command.
        deviation: what is another value in the run than it was planned, in one sentence; None where
            the run is what was planned.
    """

    entry: SweepJob
    end: End
    value: Any = None
    cause: str | None = None
    was_done: bool = False
    deviation: str | None = None


class StillOpen(Enum):
    """Why a run of a sweep has no outcome yet."""

    AT_WORK = "it runs or waits in a queue"
    UNSEEN = "it is in the queue after all, or its record will be seen soon"
    LOCKED = "somebody holds the run's lock and gives no signs of life (yet)"
    ELSEWHERE = "another command launched it, and the next look launches it here"
    NOT_BEGUN = "others of its launch have begun, or its warm-up run was among them"
    LOST = "its process was lost, and it is launched again"


class Listener(Protocol):
    """Is told how the sweep goes on."""

    def launched(self, entries: Sequence[SweepJob]) -> None:
        """These are handed to the launcher."""

    def waiting(self, entries: Sequence[SweepJob]) -> None:
        """These are at work in processes of another command, or stand in a cluster's queue."""

    def ended(self, outcome: Outcome) -> None:
        """This one is settled."""


class Scheduler:
    """Launches points and settles each of them by its record.

    What the records show as unfinished after a launch is launched again: first what was not begun,
    then what was at work when processes were lost, one by one where a process that is killed takes
    others with it. A run that another command is at work on is waited for, and so is one whose job
    stands in a cluster's queue, whichever command has submitted it.

    Args:
        launch: runs the given entries; may raise, may lose processes, and may leave jobs in a
            queue.
        seen: times of change of the records, by config hash, when it was decided what to run. What
            has failed since has failed in another command, and is not run a second time.
        isolates: a process that is killed leaves those of other runs alone.
        warmups: config hashes: of a job, and of the warm-up run that it waits for.
        in_turn: the launcher itself asks which jobs are ``ready``. Else a job is held back until
            its warm-up run is settled.
    """

    def __init__(
        self,
        launch: Launch,
        seen: Mapping[str, int] | None = None,
        isolates: bool = False,
        warmups: Mapping[str, str] | None = None,
        in_turn: bool = False,
    ) -> None:
        self._launch, self._isolates = launch, isolates
        self._warmups, self._in_turn = dict(warmups or {}), in_turn
        self._open: dict[str, SweepJob] = {}
        self._seen = dict(seen or {})
        self._over: set[tuple[str, str]] = set()  # jobs whose end has been looked at
        self._reached: dict[str, int] = {}
        self._lost: Counter[str] = Counter()
        self._busy: dict[str, float] = {}
        self._interrupted: dict[str, SweepJob] = {}  # warm-up runs
        self.outcomes: list[Outcome] = []

    def ready(self, entries: Sequence[SweepJob]) -> list[bool]:
        """Return of each entry whether it may start: the warm-up that it waits for has ended."""
        waited = [self._warmups.get(entry.config_hash) for entry in entries]
        # Hundreds of jobs may wait for one run.
        asked = set(waited) & self._open.keys()
        held = {digest for digest in asked if digest and self._ended(self._open[digest]) is None}
        return [digest not in held for digest in waited]

    def run(self, entries: Iterable[SweepJob], listener: Listener) -> None:
        """Settle all entries; what is settled stands in ``outcomes``, also after an exception.

        Args:
            entries: what to run, warm-up runs first; those are not among the outcomes.
            listener: is told of everything.
        """
        still_open = list(entries)
        self._open = {entry.config_hash: entry for entry in still_open}
        for entry in still_open:
            self._seen.setdefault(entry.config_hash, entry.mtime_ns())
            # What ended a job before this command is no reason not to launch its run.
            if entry.state() not in WAITED_FOR:
                self._looked_at(entry)
        try:
            self._settle_all(still_open, listener)
        except BaseException:
            runs = [entry for entry in still_open if entry.point.warmup_key is None]
            self.outcomes += [one for one in map(_as_it_stands, runs) if one is not None]
            raise

    def _settle_all(self, still_open: list[SweepJob], listener: Listener) -> None:
        while still_open:
            batch = self._next(still_open)
            if not batch:
                listener.waiting(still_open)
            else:
                listener.launched(batch)
            launched = self._launched(batch)
            if not launched.begun:
                # Nobody was free, or another command was faster. Thousands of files take time.
                time.sleep(max(POLL_S, len(still_open) / LOOKS_A_SECOND))
            for entry in list(still_open):
                outcome = self._settle(entry, launched)
                if isinstance(outcome, Outcome):
                    still_open.remove(entry)
                    del self._open[entry.config_hash]
                    if entry.point.warmup_key is None:
                        self.outcomes.append(outcome)
                    elif outcome.end == "interrupted":
                        self._interrupted[entry.config_hash] = entry
                    listener.ended(outcome)

    def _next(self, entries: Sequence[SweepJob]) -> list[SweepJob]:
        now = time.monotonic()
        free = [
            one
            for one in entries
            if one.state() not in WAITED_FOR and self._busy.get(one.config_hash, 0.0) <= now
        ]
        # What has ended, and what has left a queue, is settled first.
        free = [one for one in free if not (self._ended(one) or self._may_look(one))]
        untried = [one for one in free if not self._lost[one.config_hash]]
        if self._isolates:
            return self._not_held(free)
        return self._not_held(untried) or self._not_held(free)[:1]

    def _not_held(self, entries: list[SweepJob]) -> list[SweepJob]:
        """Return the entries without those whose warm-up run is open and not launched with them."""
        together = {one.config_hash for one in entries} if self._in_turn else set[str]()
        held = self._open.keys() - together
        return [one for one in entries if self._warmups.get(one.config_hash) not in held]

    def _ended(self, entry: SweepJob) -> ExistingRun | None:
        """Return what was run to its end, here or elsewhere, since it was decided to run it.

        What lies in its directory then is its run, whether or not it is the planned experiment.
        """
        if entry.mtime_ns() == self._seen[entry.config_hash]:
            return None
        run = entry.found()
        return run if run is not None and run.state in ("completed", "failed") else None

    def _launched(self, batch: Sequence[SweepJob]) -> "_Launched":
        if not batch:
            return _Launched(set(), {}, None, set())
        before = {one.config_hash: one.mtime_ns() for one in batch}
        returns: Sequence[JobEnd | None] = ()
        crash: Exception | None = None
        try:
            returns = self._launch(batch)
        except ConfigError:
            raise  # nothing can be launched with these settings
        except NotLaunchedError:
            return _Launched(set(), {}, None, set())
        except Exception as error:
            # What a launcher raises when it lost a worker is the launcher's own: the records tell
            # what became of the runs.
            crash = error
        pairs = zip((one.config_hash for one in batch), returns, strict=False)
        told = {digest: end for digest, end in pairs if end is not None}
        begun = {one.config_hash for one in batch if one.mtime_ns() != before[one.config_hash]}
        return _Launched(set(before), told, crash, begun)

    def _settle(self, entry: SweepJob, launched: "_Launched") -> Outcome | StillOpen:
        if (run := self._ended(entry)) is not None:
            return outcome_of(entry, run)
        state = entry.state()
        warmup = self._interrupted.get(self._warmups.get(entry.config_hash, ""))
        if warmup is not None and state not in WAITED_FOR:
            cause = f"not begun: {warmup.name} was interrupted"
            return Outcome(entry, "stopped", cause=cause)
        end = launched.told.get(entry.config_hash)
        if end is None and state not in WAITED_FOR and self._may_look(entry):
            end = job_end(entry.job())
            if end is None:
                return StillOpen.UNSEEN
            self._looked_at(entry)
        if isinstance(end, CrashedJob):
            return StillOpen.AT_WORK if state in WAITED_FOR else self._after(entry, end)
        error = error_of(end)
        if isinstance(error, RunBusyError):
            self._busy[entry.config_hash] = time.monotonic() + BUSY_S
            return StillOpen.LOCKED
        if error is None and state in WAITED_FOR:
            return StillOpen.AT_WORK
        if isinstance(error, SweepStoppedError):
            return Outcome(entry, "stopped", cause=str(error))
        if isinstance(error, RunInterruptedError):
            return Outcome(entry, "interrupted", cause=str(error))
        if error is not None:
            return Outcome(entry, "failed", cause=_sentence(error))
        if end is None and entry.config_hash not in launched.batch:
            return StillOpen.ELSEWHERE
        waited = self._warmups.get(entry.config_hash) in launched.batch
        if (launched.begun or waited) and entry.config_hash not in launched.begun:
            return StillOpen.NOT_BEGUN
        crash = launched.crash
        said = "its process was lost" if crash is None else f"the launcher said: {_sentence(crash)}"
        return self._after(entry, CrashedJob(said), crash)

    def _may_look(self, entry: SweepJob) -> bool:
        """Whether an entry has a job in a cluster whose end was not looked at before."""
        job = entry.job()
        return job is not None and (entry.config_hash, job.id) not in self._over

    def _looked_at(self, entry: SweepJob) -> None:
        job = entry.job()
        if job is not None:
            self._over.add((entry.config_hash, job.id))

    def _after(
        self, entry: SweepJob, lost: CrashedJob, crash: BaseException | None = None
    ) -> Outcome | StillOpen:
        """Settle a run that did not end: its process is gone."""
        if lost.end == "interrupted":
            return Outcome(entry, "interrupted", cause=lost.cause)
        cause = lost.cause
        if lost.end is None:
            if self._count_loss(entry) < ATTEMPTS:
                return StillOpen.LOST
            cause = f"its process was lost {ATTEMPTS} times; {lost.cause}"
        text = "".join(traceback.format_exception(crash)) if crash is not None else cause
        record_crash(entry, cause, text)
        return Outcome(entry, "failed", cause=cause)

    def _count_loss(self, entry: SweepJob) -> int:
        """Return how often a run was lost since it last got further."""
        digest, files = entry.config_hash, checkpoint_files(entry.paths.resume)
        reached = files[0].step if files else 0
        if reached > self._reached.get(digest, 0):
            self._lost[digest] = 0
        self._reached[digest] = reached
        self._lost[digest] += 1
        return self._lost[digest]


@dataclass(frozen=True)
class _Launched:
    """What came of one launch, by digest: how jobs ended, the launcher's end, who began."""

    batch: set[str]
    told: dict[str, JobEnd]
    crash: Exception | None
    begun: set[str]


def error_of(end: JobEnd | None) -> Exception | None:
    """Return what a job raised, None where it raised nothing or nothing is known."""
    if not isinstance(end, JobReturn) or end.status != JobStatus.FAILED:
        return None
    error = raised_by(end)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def outcome_of(entry: SweepJob, run: ExistingRun, was_done: bool = False) -> Outcome:
    """Return what the record of a run that has completed or failed says."""
    told = deviation(entry, run)
    if run.record.get("status") == "completed":
        value = (run.record.get("objective") or {}).get("value")
        return Outcome(entry, "completed", value, was_done=was_done, deviation=told)
    cause = cause_of(run.record)
    return Outcome(entry, "failed", cause=cause, was_done=was_done, deviation=told)


def deviation(entry: SweepJob, run: ExistingRun) -> str | None:
    """Return what is another value in a run than in its plan, None where it is what was planned."""
    if run.record.get("config_hash") == entry.config_hash:
        return None
    keys = entry.app.differences(entry.point, run)
    told = ", ".join(keys) or "nothing that the records show"
    name = entry.name
    return (
        f"{name} is not the run that was planned, and counts as what it is: {told} (planned -> run)"
    )


def _as_it_stands(entry: SweepJob) -> Outcome | None:
    """Return how a run stands when the sweep is ended, None for one that has not begun."""
    state = entry.state()
    run = entry.earlier()  # later: what completes meanwhile has completed
    if run is None or state in WAITED_FOR:
        return None
    return Outcome(entry, "interrupted") if state == "interrupted" else outcome_of(entry, run)


def cause_of(record: Any) -> str:
    """Return what a record says went wrong, in one sentence."""
    error = record.get("error") or {}
    message = " ".join(str(error.get("message", "")).split())
    kind = str(error.get("type", "unknown error"))
    return _short(f"{kind}: {message}" if message else kind)


def _sentence(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return printable("; ".join(str(problem) for problem in error.problems))
    text = " ".join(message_of(error).split())
    return _short(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _short(text: str) -> str:
    text = printable(text).translate(CONTROL)
    return text if len(text) <= LONGEST_CAUSE else f"{text[:LONGEST_CAUSE]} ..."
