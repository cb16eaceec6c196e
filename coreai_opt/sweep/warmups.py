"""Warm-up runs of a sweep: one more run for jobs that train the same dense model before they prune.

They wait for it and start from its checkpoint; where it fails, each of them trains its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from coreai_opt.config.schemas.settings import SweepSettings
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.run_record import code_and_versions
from coreai_opt.sweep.folder import SweepJob
from coreai_opt.sweep.scheduler import WAITED_FOR, cause_of
from coreai_opt.sweep.selection import Selection, has_failed_by_itself
from coreai_opt.warmup.run import WarmupRun
from lightning_callbacks._resume.checkpoint_files import checkpoint_files

NOT_POSSIBLE = "WarmupNotPossibleError"  # trained again it would fail again


def add_warmups(
    selection: Selection, root: Path, settings: SweepSettings, threads: int | None = None
) -> None:
    """Add the warm-up runs that a selection needs, and say from which its jobs start.

    Args:
        selection: what is to be run.
        root: the sweep's directory.
        settings: the sweep's own.
        threads: of each job, None = not known before it runs.
    """
    groups: dict[str, list[SweepJob]] = {}
    for job in selection.to_run:
        key = job.app.warmup_key(job.point) if _begins(job, selection) else None
        if key is not None:
            groups.setdefault(key, []).append(job)
    code = code_and_versions() if groups else {}
    for key, jobs in groups.items():
        app = jobs[0].app
        paths = RunPaths(root / f"warmup-{key[:8]}", app.inner)
        warmup = SweepJob(replace(jobs[0].point, warmup_key=key), paths, app)
        if _add(selection, warmup, len(jobs), settings, {**code, "threads": threads}):
            selection.warmup_of |= {job.config_hash: warmup for job in jobs}


def counted(number: int) -> str:
    """Return how many warm-up runs there are, in words."""
    return "1 dense warm-up" if number == 1 else f"{number} dense warm-ups"


def _begins(job: SweepJob, selection: Selection) -> bool:
    """Return whether a job begins at its first step, in a process of this command."""
    if selection.states[job.config_hash] in WAITED_FOR or job.point.problems:
        return False
    begins_anew = job in selection.restarts or job.point.config.get("resume") == "never"
    return begins_anew or not checkpoint_files(job.paths.resume)


def _add(
    selection: Selection,
    warmup: SweepJob,
    jobs: int,
    settings: SweepSettings,
    here: Mapping[str, Any],
) -> bool:
    """Add a warm-up run if it is to be run, and return whether jobs can start from it."""
    # First: what is written after this look has another time.
    mtime_ns, state = warmup.mtime_ns(), warmup.state()
    known, name = WarmupRun.at(warmup.paths.root), warmup.name
    change = None if known is None else _change(known, here)
    is_kept = change is None and settings.retry != "all"
    if state == "completed" and known is not None and is_kept:
        problem = known.problem(here)
        if problem is None:
            selection.sentences.append(f"{_runs(jobs)} from the dense warm-up in {name}")
            return True
        change = problem
    if state == "failed" and known is not None and is_kept:
        error = known.run.record.get("error") or {}
        if error.get("type") == NOT_POSSIBLE or settings.retry == "none":
            cause = cause_of(known.run.record)
            selection.sentences.append(f"no dense warm-up is shared ({name} has failed: {cause})")
            return False
    if state not in WAITED_FOR and jobs < 2:
        return False
    if change is not None and state not in WAITED_FOR:
        selection.sentences.append(f"{name} is trained again: {change}")
    selection.mtimes[warmup.config_hash] = mtime_ns
    selection.states[warmup.config_hash] = state
    selection.warmups.append(warmup)
    earlier = None if known is None else known.run
    can_go_on = state in ("interrupted", "failed") and not has_failed_by_itself(earlier, state)
    if state not in ("new", *WAITED_FOR) and not (can_go_on and is_kept):
        selection.restarts.append(warmup)
    return True


def _change(known: WarmupRun, here: Mapping[str, Any]) -> str | None:
    """Return why a warm-up would come out otherwise today, None where it would not."""
    threads = known.run.record.get("threads")
    if None not in (threads, here["threads"]) and threads != here["threads"]:
        return f"it was trained with {threads} threads, and runs have {here['threads']} now"
    return known.change(here)


def _runs(count: int) -> str:
    return "1 run starts" if count == 1 else f"{count} runs start"
