"""Which points of a sweep are run: what is done stays done, unless the user wants it otherwise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.schemas.settings import SweepSettings
from coreai_opt.runs.data_files import changed_files, forget_files
from coreai_opt.runs.existing_run import ExistingRun, same_code
from coreai_opt.runs.run_record import code_and_versions
from coreai_opt.sweep.apps.swept_app import SweptApp
from coreai_opt.sweep.crashed import LostProcessError
from coreai_opt.sweep.folder import OWN, EntryState, SweepJob
from coreai_opt.sweep.scheduler import Outcome, outcome_of

# What a run has died of that is not its own doing: a process of it is gone.
LOST = (LostProcessError.__name__, "RankLostError")


@dataclass
class Selection:
    """What is run and what is not, of the points of a sweep.

    Attributes:
        to_run: in the order of the points.
        restarts: of what is run, the ones that begin anew whatever lies in their directories.
        warmups: the warm-up runs that are run beside them.
        warmup_of: the warm-up run that a job starts from, by the job's digest.
        states: how each entry stood, by digest.
        mtimes: when their records had been written then, in ns, by config hash.
        settled: what is not run again, with its end.
        sentences: what the user is told.
    """

    to_run: list[SweepJob] = field(default_factory=list)
    restarts: list[SweepJob] = field(default_factory=list)
    warmups: list[SweepJob] = field(default_factory=list)
    warmup_of: dict[str, SweepJob] = field(default_factory=dict)
    states: dict[str, EntryState] = field(default_factory=dict)
    mtimes: dict[str, int] = field(default_factory=dict)
    settled: list[Outcome] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def select(entries: Iterable[SweepJob], settings: SweepSettings, app: SweptApp = OWN) -> Selection:
    """Return what to run; nothing is written.

    Raises:
        ConfigError: runs are of other code or data, and ``sweep.on_code_change=error``.
    """
    selection = Selection()
    forget_files()  # they may have changed since another sweep of this process
    now = code_and_versions()
    changes = {"code": 0, "data": 0}
    for entry in entries:
        # First: what is written after this look has another time.
        selection.mtimes[entry.config_hash] = entry.mtime_ns()
        state = entry.state()
        run = entry.earlier()
        selection.states[entry.config_hash] = state
        is_at_work = state in ("running", "queued")
        change = None if run is None or is_at_work else _change(run, now)
        if change is not None:
            changes[change] += 1
        is_rerun = change is not None and settings.on_code_change == "rerun"
        _place(selection, entry, run, settings.retry, is_rerun)
    for what, count in changes.items():
        if count:
            selection.sentences.append(_told(what, count, settings.on_code_change, app))
    return selection


def _place(
    selection: Selection, entry: SweepJob, run: ExistingRun | None, retry: str, is_rerun: bool
) -> None:
    state = selection.states[entry.config_hash]
    wanted = retry == "all" or is_rerun
    left: tuple[str, ...] = ("completed", "failed") if retry == "none" else ("completed",)
    if run is not None and state == "completed" and retry != "none":
        left = left if entry.app.is_whole(entry.point, run.record) else ()
    if run is not None and state in left and not wanted:
        outcome = outcome_of(entry, run, was_done=True)
        selection.settled.append(outcome)
        selection.sentences += [] if outcome.deviation is None else [outcome.deviation]
    elif state == "unreadable" and retry == "none":
        cause = f"{entry.paths.result} cannot be read"
        selection.settled.append(Outcome(entry, "failed", cause=cause, was_done=True))
    else:
        selection.to_run.append(entry)
        is_over = state == "unreadable" or has_failed_by_itself(run, state)
        if is_over or (wanted and state not in ("new", "running", "queued")):
            selection.restarts.append(entry)
    if state == "unreadable" and retry != "none":
        sentence = f"{entry.paths.result} cannot be read: set aside, and the run begins anew"
        selection.sentences.append(sentence)


def has_failed_by_itself(run: ExistingRun | None, state: EntryState) -> bool:
    """Return whether a run begins anew after its failure.

    What was lost with its process has a checkpoint to go on from, and nothing against it.
    """
    error = {} if run is None else run.record.get("error") or {}
    return state == "failed" and error.get("type") not in LOST


def _change(run: ExistingRun, now: Mapping[str, Any]) -> str | None:
    """Return why a run might come out otherwise today, None where it would not."""
    if not same_code(run.record, now):
        return "code"
    return "data" if changed_files(run.record) else None


def _told(what: str, count: int, choice: str, app: SweptApp) -> str:
    runs = "1 run was" if count == 1 else f"{count} runs were"
    sentence, key = f"{runs} made before the {what} changed", app.knob("on_code_change")
    if choice == "error":
        allowed = f"allowed: {key}=warn or rerun, or another {app.knob('name')}"
        raise ConfigError.of(key, f"{sentence}; {allowed}")
    if choice == "rerun":
        return f"{sentence}: run again"
    return f"{sentence}: counted or gone on with; {key}=rerun runs them again"
