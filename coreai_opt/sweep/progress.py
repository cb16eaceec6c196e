"""What a person sees while a sweep runs: one table in a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from coreai_opt.report.formatting import duration, short_value
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.sweep.folder import EntryState, SweepJob
from coreai_opt.sweep.launchers.slurm_queue import slurm_queue
from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.scheduler import LOOKS_A_SECOND, Outcome, outcome_of
from coreai_opt.sweep.selection import Selection
from coreai_opt.sweep.warmups import counted

REFRESH_S = 0.5
MOST_BARS = 12

# What is said of runs that are to be run, by how they stood.
TO_RUN: dict[EntryState, str] = {
    "new": "to run",
    "interrupted": "to go on with",
    "failed": "to run again after a failure",
    "completed": "to run again",
    "unreadable": "to run again, their records cannot be read",
    "running": "at work in another process",
    "queued": "in the queue of a cluster",
}


class SweepProgress:
    """How far a sweep is.

    Args:
        plan: the sweep.
        selection: what is run and what had been done before.
    """

    def __init__(self, plan: Plan, selection: Selection) -> None:
        self.name, self.total = plan.name, len(plan.points)
        self.outcomes: list[Outcome] = list(selection.settled)
        self._open = {entry.config_hash: entry for entry in selection.to_run}
        self._warmups = {entry.config_hash: entry for entry in selection.warmups}
        self.app = plan.app
        self.objective, self.mode = plan.app.objective(plan.config)
        self._since = time.monotonic()

    def settle(self, outcome: Outcome) -> bool:
        """Count a run as ended; false where it was counted before. Warm-up runs are not counted."""
        if outcome.entry.point.warmup_key is not None:
            return self._warmups.pop(outcome.entry.config_hash, None) is not None
        if self._open.pop(outcome.entry.config_hash, None) is None:
            return False
        self.outcomes.append(outcome)
        return True

    def open_entries(self) -> list[SweepJob]:
        """Return what has not ended yet, but for warm-up runs."""
        return list(self._open.values())

    def open_jobs(self) -> list[SweepJob]:
        """Return what has not ended yet, warm-up runs first."""
        return [*self._warmups.values(), *self._open.values()]

    def count(self, *ends: str) -> int:
        """Return how many runs ended so."""
        return sum(outcome.end in ends for outcome in self.outcomes)

    @property
    def best(self) -> Outcome | None:
        """The completed run with the best objective, None where nobody can tell (yet)."""
        if self.mode is None:
            return None
        known = [one for one in self.outcomes if isinstance(one.value, int | float)]
        choose = max if self.mode == "max" else min
        return choose(known, key=lambda outcome: float(outcome.value), default=None)

    def running(self) -> list[ExistingRun]:
        """Return the runs whose process has said something lately."""
        runs = [entry.earlier() for entry in self.open_jobs()]
        return [
            run
            for run in runs
            if run is not None
            and run.record.get("status") == "running"
            and (run.state == "running" or run.is_in_this_process)
        ]

    def queued(self) -> list[tuple[SweepJob, str]]:
        """Return what stands in a cluster's queue, with its job and that one's state."""
        jobs = [(entry, entry.job()) for entry in self.open_jobs()]
        queue = slurm_queue()
        return [
            (entry, f"SLURM job {job.id} {queue.state(job)}")
            for entry, job in jobs
            if job is not None and entry.state() == "queued"
        ]

    def waiting_count(
        self, running: Sequence[ExistingRun], queued: Sequence[tuple[SweepJob, str]]
    ) -> int:
        """Return how many runs have not begun, warm-up runs not among them."""
        begun = {run.paths.root for run in running} | {job.paths.root for job, _ in queued}
        return sum(entry.paths.root not in begun for entry in self.open_entries())

    def seconds_left(self) -> float | None:
        """Return how long the rest will take at the pace so far, None where none has ended."""
        ended = [one for one in self.outcomes if not one.was_done and one.end != "stopped"]
        if not ended or not self._open:
            return None
        return (time.monotonic() - self._since) / len(ended) * len(self._open)


class _Events:
    """Says of each run how it ended, when its record does, and once."""

    def __init__(self, board: SweepProgress, console: Console) -> None:
        self._board, self._console = board, console
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._began: dict[str, int] = {}
        self._thread = threading.Thread(target=self._watch, name="sweep", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def launched(self, entries: Sequence[SweepJob]) -> None:
        for entry in entries:
            if entry.config_hash in self._began and entry.state() == "interrupted":
                self._say(f"launched again: {entry.name}")
            self._began[entry.config_hash] = entry.mtime_ns()

    def ended(self, outcome: Outcome) -> None:
        with self._lock:
            if self._board.settle(outcome):
                self._say(line_of(self._board, outcome))
                if outcome.deviation is not None:
                    self._say(outcome.deviation)

    def look(self) -> None:
        """Settle the runs whose records have ended since they were launched."""
        for entry in self._board.open_jobs():
            digest = entry.config_hash
            if digest not in self._began or entry.mtime_ns() == self._began[digest]:
                continue
            run = entry.earlier()
            if run is not None and run.record.get("status") in ("completed", "failed"):
                self.ended(outcome_of(entry, run))

    def _watch(self) -> None:
        while not self._stop.wait(max(REFRESH_S, len(self._board.open_entries()) / LOOKS_A_SECOND)):
            self.look()

    def _say(self, text: str) -> None:
        self._console.print(text)

    def _elsewhere(self, entries: Sequence[SweepJob]) -> list[SweepJob]:
        """Return what processes of another command are at work on, and no cluster."""
        return [one for one in entries if one.state() == "running" and one.job() is None]


class PlainLines(_Events):
    """One line an event, for logs and for where there is no terminal."""

    def __init__(self, board: SweepProgress, console: Console) -> None:
        super().__init__(board, console)
        self._told: dict[str, str] = {}
        self._has_waited = False

    def waiting(self, entries: Sequence[SweepJob]) -> None:
        others = self._elsewhere(entries)
        if others and not self._has_waited:
            names = ", ".join(entry.name for entry in others)
            self._say(f"waiting for runs that another process is at work on: {names}")
            self._has_waited = True
        for entry, state in self._board.queued():
            if self._told.get(entry.config_hash) != state and "COMPLETING" not in state:
                self._say(f"{state}: {entry.name}")
            self._told[entry.config_hash] = state


class LiveTable(_Events):
    """The table at the bottom of a terminal, with a bar for each run at work below it."""

    def __init__(self, board: SweepProgress, console: Console) -> None:
        super().__init__(board, console)
        self._note = ""
        self._live = Live(console=console, get_renderable=self.render, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._live.refresh()
        self._live.stop()

    def launched(self, entries: Sequence[SweepJob]) -> None:
        super().launched(entries)
        self._note = ""

    def waiting(self, entries: Sequence[SweepJob]) -> None:
        is_told = "waiting for another process that is at work on this sweep"
        self._note = is_told if self._elsewhere(entries) else ""

    def look(self) -> None:
        super().look()
        self._live.refresh()

    def render(self) -> RenderableType:
        """Return table and bars as they stand."""
        board, running, queued = self._board, self._board.running(), self._board.queued()
        table = Table(title=f"sweep {board.name}", title_justify="left")
        in_queue = ("in the queue",) if queued else ()
        for column in ("done", "running", *in_queue, "failed", "waiting", "left", "best so far"):
            table.add_column(column, overflow="fold")
        left, best = board.seconds_left(), board.best
        shown = "" if best is None else f"{short_value(board.objective, best.value)}"
        table.add_row(
            f"{board.count('completed')} of {board.total}",
            str(len(running)),
            *([str(len(queued))] if queued else []),
            str(board.count("failed", "interrupted")),
            str(board.waiting_count(running, queued)),
            "" if left is None else duration(left),
            f"{shown} {best.entry.name}" if best is not None else "",
        )
        lines = [f"{entry.name} {state}" for entry, state in queued[:MOST_BARS]]
        return Group(table, *self._bars(running), *map(Text, lines), self._note)

    def _bars(self, running: Sequence[ExistingRun]) -> list[RenderableType]:
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), TaskProgressColumn())
        bars = Progress(*columns, TextColumn("{task.fields[steps]}"), console=self._console)
        for run in running[:MOST_BARS]:
            total = run.progress.get("total_steps")
            # Another app may count no steps.
            begun = duration(run.seconds) if run.paths.inner else "starting"
            steps = f"step {run.step} of {total}" if total else begun
            bars.add_task(run.paths.root.name, total=total, completed=run.step, steps=steps)
        return [bars] if running else []


def line_of(board: SweepProgress, outcome: Outcome) -> str:
    """Return what is said of a run that has ended."""
    if outcome.entry.point.warmup_key is not None:
        return _line_of_warmup(outcome)
    ended = f"[{len(board.outcomes)}/{board.total}] {outcome.end}"
    name = outcome.entry.name
    run = outcome.entry.found()
    if outcome.end == "completed" and run is not None:
        return f"{ended} {board.app.summary(run.record, name)}"
    return f"{ended} {name}: {outcome.cause}"


def _line_of_warmup(outcome: Outcome) -> str:
    name, run = outcome.entry.name, outcome.entry.found()
    facts = None if run is None else run.record.get("warmup")
    if outcome.end == "completed" and run is not None and facts:
        return f"dense warm-up {outcome.end}: {facts['steps']} steps, {run.seconds:.1f} s, {name}"
    cause = f": {outcome.cause}" if outcome.cause else ""
    then = "each of its runs trains its own"
    if outcome.end == "interrupted":
        then = "its runs are not begun, and the same command goes on"
    return f"dense warm-up {outcome.end}: {name}{cause}; {then}"


@contextmanager
def show(plan: Plan, selection: Selection) -> Iterator[Any]:
    """Yield the listener that suits where the output goes."""
    console = Console(markup=False, emoji=False, soft_wrap=True, highlight=False)
    board = SweepProgress(plan, selection)
    for sentence in [*plan.sentences, *selection.sentences]:
        console.print(sentence)
    console.print(f"sweep {plan.name} in {plan.root}: {opening(board, selection)}")
    has_table = sys.stdout.isatty() and board.open_entries()
    with LiveTable(board, console) if has_table else PlainLines(board, console) as listener:
        yield listener


def opening(board: SweepProgress, selection: Selection) -> str:
    """Return how a sweep stands before anything is launched."""
    parts = [f"{board.total} runs" if board.total != 1 else "1 run"]
    if done := board.count("completed"):
        parts.append(f"{done} done before")
    if failed := board.count("failed"):
        retry = board.app.knob("retry")
        parts.append(f"{failed} failed before and not run again ({retry}=failed does)")
    states = [selection.states[entry.config_hash] for entry in selection.to_run]
    for state, told in TO_RUN.items():
        if number := states.count(state):
            parts.append(f"{number} {told}")
    if selection.warmups:
        parts.append(f"after {counted(len(selection.warmups))} that they share")
    return ", ".join(parts)
