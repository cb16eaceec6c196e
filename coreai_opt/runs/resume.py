"""Whether a run goes on from an earlier one: ``resume=auto|never|PATH``, ``resume_force``."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coreai_opt.config.errors import ConfigError, Problem, RunBusyError
from coreai_opt.config.identity import config_hash
from coreai_opt.config.locations import typed_path
from coreai_opt.runs.existing_run import ExistingRun, differing_keys, same_code, unfinished_runs
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.run_record import code_and_versions, code_of_this_run
from lightning_callbacks._resume.checkpoint_files import CheckpointFile, newest_checkpoint

AUTO, NEVER = "auto", "never"
DAMAGED = "the file is damaged; allowed: another checkpoint, or the run directory"


@dataclass(frozen=True)
class Start:
    """How a run starts in its directory.

    Attributes:
        checkpoint: file to go on from, None = from the beginning.
        earlier: the run that is gone on with or begun anew, None = there was none.
        sentences: what the user is told.
        is_done: the run has completed before; nothing is left to do.
    """

    checkpoint: Path | None = None
    earlier: ExistingRun | None = None
    sentences: tuple[str, ...] = ()
    is_done: bool = False

    @property
    def step(self) -> int:
        """Optimizer steps that are finished when the run starts."""
        file = None if self.checkpoint is None else CheckpointFile.at(self.checkpoint)
        return 0 if file is None else file.step


def given_path(config: Mapping[str, Any]) -> Path | None:
    """Return the run or checkpoint that ``resume=PATH`` names, None for ``auto`` and ``never``."""
    resume = config.get("resume", AUTO)
    return None if resume in (AUTO, NEVER) else typed_path(str(resume))


def resume_problems(config: Mapping[str, Any], is_sweep: bool) -> list[Problem]:
    """Return what is wrong with ``resume``, as far as the file system tells."""
    resume, given = config.get("resume", AUTO), given_path(config)
    if given is None:
        return []
    if is_sweep:
        return [_problem(resume, "a sweep has many runs; allowed: auto or never")]
    allowed = "allowed: auto, never, a run directory or a checkpoint"
    if not given.exists():
        return [_problem(resume, f"there is no such file or directory; {allowed}")]
    run = _run_of(given)
    if given.is_dir() and run is None:
        return [_problem(resume, f"a directory without a record (result.json); {allowed}")]
    if given.is_file() and (file := CheckpointFile.at(given)) is None:
        reason = "not a checkpoint that was written for going on"
        return [_problem(resume, f"{reason}; allowed: RUN, RUN/resume/*.ckpt, or init_from=PATH")]
    if given.is_file() and file is not None and not file.is_whole():
        return [_problem(resume, DAMAGED)]
    if run is None:
        return []
    if run.state == "completed":
        reason = "this run has completed"
        return [_problem(resume, f"{reason}; allowed: an interrupted run, or init_from=PATH")]
    return _running(run) or _differing(run, config)


def choose_directory(
    config: Mapping[str, Any], own: Path, is_given: bool = False
) -> tuple[Path, list[str]]:
    """Return the directory that a single run works in, and what the user is told.

    Args:
        config: the resolved config, already checked.
        own: the directory that a new run would make.
        is_given: whether the user has named it.
    """
    resume, given = config.get("resume", AUTO), given_path(config)
    if given is not None:
        run = _run_of(given)
        return (own if run is None else run.paths.root), []
    if is_given or ExistingRun.at(own) is not None:
        return own, []
    same = unfinished_runs(Path(config["paths"]["output_root"]), config_hash(config))
    found = [run for run in same if run.state == "interrupted"]
    now = code_and_versions() if found else {}
    if resume != NEVER:
        for run in found:
            if same_code(run.record, now):
                return run.paths.root, []
    sentences = [_at_work(run) for run in same if run.state == "running"]
    return own, sentences + _left_behind(found, is_asked=resume == NEVER)


def _at_work(run: ExistingRun) -> str:
    seconds = f"{time.time() - float(run.progress.get('time', 0.0)):.0f} s ago"
    who = f"process {run.progress.get('pid')} on {run.progress.get('host')}"
    return f"not going on with {run.paths.root}: {who} is at work in it (last sign {seconds})"


def _left_behind(runs: list[ExistingRun], is_asked: bool) -> list[str]:
    if not runs:
        return []
    root, others = runs[0].paths.root, len(runs) - 1
    where = f"{root} (interrupted at step {runs[0].step})"
    where += f" and {others} more" if others else ""
    if is_asked:
        return [f"leaving behind {where}"]
    onward = f"resume={root} goes on all the same"
    return [f"not going on with {where}: the code has changed since; {onward}"]


def directory_problems(config: Mapping[str, Any], paths: RunPaths, is_sweep: bool) -> list[Problem]:
    """Return why a run must not work in a directory; nothing where it is new, or its own."""
    earlier = ExistingRun.at(paths.root)
    if earlier is None:
        return [_occupied(paths, "a record that cannot be read")] if paths.result.exists() else []
    if earlier.state == "completed":
        is_done = is_sweep and config.get("resume", AUTO) == AUTO
        occupied = [_occupied(paths, "the record of a completed run")]
        return _differing(earlier, config) if is_done else occupied
    return _running(earlier) or _differing(earlier, config)


def plan_start(config: Mapping[str, Any], paths: RunPaths, is_sweep: bool) -> Start:
    """Return how a run starts in a directory; asked on rank 0, before the record is written.

    Raises:
        ConfigError: the directory holds another run, or one that must not be touched.
        RunBusyError: another process is at work in it.
    """
    if problems := directory_problems(config, paths, is_sweep):
        at_work = ExistingRun.at(paths.root)
        is_busy = at_work is not None and at_work.state == "running"
        raise (RunBusyError if is_busy else ConfigError)(problems)
    given, earlier = given_path(config), ExistingRun.at(paths.root)
    if earlier is None:
        return _from_elsewhere(given)
    if earlier.state == "completed":
        sentence = f"{paths.root} has completed before: nothing to do"
        return Start(earlier=earlier, sentences=(sentence,), is_done=True)
    if config.get("resume") == NEVER:
        sentence = f"begins anew in {paths.root}; what was there is set aside"
        return Start(earlier=earlier, sentences=(sentence,))
    return _go_on(earlier, given if given is not None and given.is_file() else None)


def follow_start(config: Mapping[str, Any], paths: RunPaths) -> Start:
    """Return how a rank other than 0 starts, once rank 0 has begun."""
    given = given_path(config)
    if given is not None and given.is_file():
        return Start(given)
    newest = newest_checkpoint(paths.resume)
    return Start(None if newest is None else newest.path, ExistingRun.at(paths.root))


def _go_on(earlier: ExistingRun, given: Path | None) -> Start:
    root = earlier.paths.root
    newest = newest_checkpoint(earlier.paths.resume) if given is None else CheckpointFile.at(given)
    if newest is not None and given is not None and not newest.is_whole():
        raise ConfigError([_problem(given, DAMAGED)])
    if newest is None:
        sentence = f"begins anew in {root}: the run had ended before its first checkpoint"
        return Start(earlier=earlier, sentences=(sentence,))
    total = earlier.progress.get("total_steps")
    of_all = f" of {total}" if total else ""
    sentence = f"goes on in {root} from step {newest.step}{of_all}"
    return Start(newest.path, earlier, (sentence, *_changes(earlier)))


def _changes(earlier: ExistingRun) -> list[str]:
    """Return what keeps a run from ending as the one that was interrupted would have."""
    now = code_of_this_run()
    before = earlier.record.get("versions") or {}
    changed = [
        f"{name} {before.get(name)} -> {version}"
        for name, version in now["versions"].items()
        if before.get(name) != version and name != "coreai_opt"
    ]
    sentences = []
    if not same_code(earlier.record, now):
        sentences.append("the code has changed since then: the result may be another one")
    if changed:
        sentences.append(f"other versions than then, so not bit for bit: {', '.join(changed)}")
    return sentences


def _from_elsewhere(given: Path | None) -> Start:
    if given is None or not given.is_file():
        return Start()
    file = CheckpointFile.at(given)
    if file is None or not file.is_whole():
        raise ConfigError([_problem(given, DAMAGED)])
    sentence = f"goes on from step {file.step} of {given}; sparsity.csv begins there"
    return Start(given, None, (sentence,))


def _run_of(given: Path) -> ExistingRun | None:
    """Return the run that a path is, or lies in."""
    candidates = [given] if given.is_dir() else [given.parent.parent, given.parent]
    runs = (ExistingRun.at(folder) for folder in candidates)
    return next((run for run in runs if run is not None), None)


def _running(run: ExistingRun) -> list[Problem]:
    if run.state != "running":
        return []
    who = f"process {run.progress.get('pid')} on {run.progress.get('host')}"
    sentence = f"{run.paths.root}: {who} is at work in it; allowed: wait for it, or end it"
    return [Problem("resume", sentence)]


def _differing(run: ExistingRun, config: Mapping[str, Any]) -> list[Problem]:
    if config.get("resume_force") or _is_warmup_of_this_job(run):
        return []
    keys = differing_keys(run.record["config"], config)
    if not keys:
        return []
    command = " ".join(run.record.get("overrides") or []) or "no overrides"
    sentence = (
        f"{run.paths.root} was begun with another config: {', '.join(keys)}; allowed: the same "
        f"config ({command}), another directory, or resume_force=true"
    )
    return [Problem("resume", sentence)]


def _is_warmup_of_this_job(run: ExistingRun) -> bool:
    # Runs of one key do the same before they prune, and differ in what comes after.
    environment = JobEnvironment.received() or JobEnvironment()
    return run.record.get("config_hash") == environment.warmup_key


def _occupied(paths: RunPaths, what: str) -> Problem:
    sentence = f"hydra.run.dir={paths.root} holds {what}"
    return Problem("hydra.run.dir", f"{sentence}; allowed: a directory without result.json")


def _problem(value: object, reason: str) -> Problem:
    return Problem("resume", f"resume={value}: {reason}")
