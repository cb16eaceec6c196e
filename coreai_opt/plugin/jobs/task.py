"""Job of a sweep of any app: its task, with a record around it.

A job is skipped, goes on or begins anew by the record that lies in its directory, under every
launcher and whoever runs it.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write

from coreai_opt.config.any_config import plain_config
from coreai_opt.config.errors import ConfigError, RunBusyError, RunFailedError, message_of
from coreai_opt.distributed.gpu_slots import gpu_slot
from coreai_opt.distributed.handoff import await_start, publish_start, refusal_published
from coreai_opt.distributed.ranks import rank_arguments, run_dir_text
from coreai_opt.plugin.asked import knobs_in
from coreai_opt.plugin.experiment import any_config, result_of
from coreai_opt.plugin.jobs.command import Command
from coreai_opt.plugin.jobs.record import new_record, take
from coreai_opt.plugin.jobs.resume_key import hand_over, newest_in, resume_key
from coreai_opt.plugin.jobs.warmup import finish_warmup, start_from, warmup_end
from coreai_opt.plugin.settings import GUESS, AnySweepSettings
from coreai_opt.pruning._registry import nearest
from coreai_opt.report.formatting import quoted
from coreai_opt.runs.context import only_process_in
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.paths import INNER, RunPaths
from coreai_opt.runs.processes import is_main_process, launch_id
from coreai_opt.runs.resume import Start
from coreai_opt.runs.run_record import Heartbeat, Progress, Record
from coreai_opt.runs.signals import Interruptions, RunEnded, exit_code_of
from coreai_opt.runs.values import RunValues
from lightning_callbacks._resume.checkpoint_files import remove_all

Task = Callable[[DictConfig], Any]


class RecordedTask:
    """A task of an app, which Hydra calls in a job.

    Args:
        task: the app's own.
        command: that the sweep was begun with.
    """

    def __init__(self, task: Task, command: Command) -> None:
        self._task, self._command = task, command
        self.__name__ = getattr(task, "__name__", "task")
        self.__doc__ = task.__doc__

    def __call__(self, cfg: DictConfig) -> Any:
        """Run the task unless its run has completed, and return what it returns.

        Raises:
            RunFailedError: the task has raised an error; the record holds the traceback.
            RunBusyError: another process is at work in the directory.
        """
        environment = JobEnvironment.received() or JobEnvironment()
        job = _Job(self._command, cfg, environment)
        launch, is_main = launch_id(os.environ), is_main_process()
        if not is_main:
            start = Start() if launch is None else await_start(job.paths, launch)
            job.go_on(start)
            return self._task(cfg)
        job.paths.home.mkdir(parents=True, exist_ok=True)
        with refusal_published(job.paths, launch), only_process_in(job.paths):
            start = job.start()
            if launch is not None:
                publish_start(job.paths, launch, start)
            for sentence in start.sentences:
                print(sentence)
            if start.is_done and start.earlier is not None:
                return (start.earlier.record.get("objective") or {}).get("value")
            job.go_on(start)
            return job.run(self._task, start)


class _Job:
    """One job, in the process that runs it."""

    def __init__(self, command: Command, cfg: DictConfig, environment: JobEnvironment) -> None:
        hydra: Any = HydraConfig.get()
        self._settings = AnySweepSettings.of(hydra.sweeper)
        self._command, self._cfg, self._environment = command, cfg, environment
        self._values = plain_config(cfg)  # before a checkpoint is put into it
        self._config = any_config(cfg, hydra, self._settings, environment.ignore)
        self._resume_key = resume_key(self._config.values, self._settings.resume_key)
        self._hydra_folder = str(hydra.output_subdir or "")
        self.paths = RunPaths(Path(hydra.runtime.output_dir), INNER)
        self._warmup: dict[str, Any] | None = None  # that the run starts from

    def start(self) -> Start:
        """Return how the run starts, by what lies in its directory.

        Raises:
            ConfigError: the directory is another run's.
            RunBusyError: another process is at work in it.
            RunFailedError: the run has failed in another command since the sweep looked at it.
        """
        paths, earlier = self.paths, ExistingRun.at(self.paths.root)
        if earlier is None:
            if paths.result.exists():
                paths.archive_attempt([self._hydra_folder])
            return self._anew()
        known = (earlier.record.get("config_hash"), earlier.record.get("planned_hash"))
        mine = {self._config.hash, self._environment.config_hash, self._environment.warmup_key}
        if not mine & {*known}:
            sentence = f"{paths.root} holds the run of another config"
            raise ConfigError.of("hydra.sweep.dir", f"{sentence}; allowed: another directory")
        if earlier.state == "running":
            who = f"process {earlier.progress.get('pid')} on {earlier.progress.get('host')}"
            sentence = f"{paths.root}: {who} is at work in it; allowed: wait for it, or end it"
            raise RunBusyError.of("hydra.sweep.dir", sentence)
        is_as_seen = paths.result.stat().st_mtime_ns == self._environment.mtime_ns
        if self._environment.restart and is_as_seen:
            return self._anew(earlier)
        if earlier.state == "completed":
            return Start(earlier=earlier, is_done=True)
        if earlier.state == "failed" and not is_as_seen:
            error = earlier.record.get("error") or {}
            raise RunFailedError(f"{error.get('type')}: {error.get('message')}", paths.result)
        return self._onward(earlier)

    def _anew(self, earlier: ExistingRun | None = None, *sentences: str) -> Start:
        """Return the start at the first step, or at the end of a warm-up that is shared."""
        folder = self._environment.warmup
        if not folder or self._resume_key is None:
            return Start(earlier=earlier, sentences=sentences)
        start, self._warmup = start_from(self.paths, folder)
        return replace(start, earlier=earlier, sentences=(*sentences, *start.sentences))

    def _onward(self, earlier: ExistingRun) -> Start:
        is_guessed = self._settings.resume_key == GUESS
        root, found = earlier.paths.root, newest_in(self.paths, is_guessed)
        if found is None or self._resume_key is None:
            why = "the run had left no whole checkpoint"
            if is_guessed:
                why += " of Lightning's; hydra.sweeper.resume_key=KEY takes other files of torch"
            if self._resume_key is None:
                why = "this app has no key for a checkpoint (hydra.sweeper.resume_key)"
            return self._anew(earlier, f"begins anew in {root.name}: {why}")
        told = [f"{path} is damaged, and the one before it is used" for path in found.damaged]
        name = found.path.relative_to(root)
        told.append(f"goes on in {root.name} from {name}, by {self._resume_key}")
        if not found.is_exact:
            told.append(
                "not bit for bit: what the app keeps in no checkpoint begins anew, as random "
                "numbers and the place in the data; +resumable=on in a Lightning app keeps them"
            )
        return Start(found.path, earlier, tuple(told))

    def go_on(self, start: Start) -> None:
        """Hand the app the checkpoint that it starts from, if there is one."""
        if start.checkpoint is not None and self._resume_key is not None:
            hand_over(self._cfg, self._resume_key, start.checkpoint)

    def run(self, task: Task, start: Start) -> Any:
        """Run the task with a record around it, and return what it returns."""
        record = self._record(start)
        with Interruptions(in_sweep=True) as interruptions:
            values = RunValues(Progress(start.step), self.paths.home, interruptions)
            beats = Heartbeat(self.paths.progress, values.progress, True, lambda: record.seconds)
            try:
                values.ranks = lambda root: self._ranks(root, start)
                values.is_resumable = self._settings.warmup == "auto"
                values.warmup_end = self._end_of_warmup()
                with beats, values, self._resources(start), values.stack:
                    returned = _returned_by(task, self._cfg, values)
                values.finish()
                values.warnings += self._warnings(values)
                take(record, values, result_of(returned, values.metrics, self._settings))
                if self._is_warmup:
                    finish_warmup(record, self.paths, self._environment.warmup_key, values)
                record.complete()
            except BaseException as error:
                outcome = _failed(record, self.paths, error, values)
                if isinstance(outcome, RunEnded):
                    outcome.pressed = interruptions.pressed
                interruptions.pass_on(error)
                raise outcome from error
        if not self._is_warmup:  # the checkpoint is all that it is for
            with suppress(OSError):
                for folder in self.paths.home.glob(f"{self.paths.resume.name}*"):
                    remove_all(folder)
        return returned

    def _warnings(self, values: RunValues) -> Iterator[str]:
        """Yield what a run that has come to its end is not, of what was asked."""
        knobs, objective = self._config.knobs, self._settings.objective
        is_asked = knobs is not None and not knobs.is_dense and not self._is_warmup
        if knobs is not None and is_asked and "sparsity" not in values.facts:
            yield f"nothing was pruned, although {knobs.option} was given"
        if objective is not None and objective not in values.metrics and not self._is_warmup:
            known = list(values.metrics)
            hint = nearest(objective, known) if known else "no metric is known"
            yield f"it has no metric {objective!r} (hydra.sweeper.objective); {hint}"

    @property
    def _is_warmup(self) -> bool:
        return bool(self._environment.warmup_key)

    def _end_of_warmup(self) -> int | None:
        return warmup_end(knobs_in(self._config.values)) if self._is_warmup else None

    def _record(self, start: Start) -> Record:
        earlier, planned = start.earlier, self._environment.config_hash
        goes_on = earlier is not None and start.checkpoint is not None and self._warmup is None
        if earlier is not None and not goes_on:
            self.paths.archive_attempt([self._hydra_folder])
        before = None if earlier is None else dict(earlier.record)
        if before is not None and not goes_on:
            before = {"attempts": before.get("attempts")}
        record = new_record(
            self.paths,
            self._values,
            self._config,
            self._command,
            earlier=before,
            seconds=earlier.seconds if earlier is not None and goes_on else 0.0,
            more={
                "resume_key": self._resume_key,
                "identity": None if planned in ("", self._config.hash) else self._config.identity,
                "warmup": self._warmup,
            },
            warmup_key=self._environment.warmup_key or None,
        )
        if start.checkpoint is not None and goes_on:
            record.content["resumed_at"].append(str(start.checkpoint.relative_to(self.paths.root)))
            record.save()
        return record

    @contextmanager
    def _resources(self, start: Start) -> Iterator[None]:
        """Compute with the job's share of the machine, and with as many threads as before."""
        environment, earlier = self._environment, start.earlier
        goes_on = earlier is not None and start.checkpoint is not None
        before = earlier.record.get("threads") if earlier is not None and goes_on else None
        count = before or environment.threads
        threads = nullcontext() if count is None else _so_many_threads(int(count))
        with gpu_slot(environment.devices, environment.jobs_per_device), threads:
            yield

    def _ranks(self, root: str, start: Start) -> AbstractContextManager[None]:
        # Lightning is there, and torch: a Trainer is being made.
        from coreai_opt.distributed.rank_processes import ranks_of_this_run

        return ranks_of_this_run(root, self._command_of_ranks(start))

    @contextmanager
    def _command_of_ranks(self, start: Start) -> Iterator[None]:
        """Make the command line that of this job alone: Lightning starts other ranks by it.

        In a worker process nobody can.
        """
        if not self._command.is_here:
            yield
            return
        hydra: Any = HydraConfig.get()
        task, own = list(hydra.overrides.task), list(hydra.overrides.hydra)
        if start.checkpoint is not None and self._resume_key is not None:
            task.append(f"++{self._resume_key}={quoted(str(start.checkpoint))}")
        words, place = list(sys.argv), hydra.run.dir
        sys.argv[1:] = [*self._command.flags, *rank_arguments(own, task)]
        with read_write(hydra), open_dict(hydra):
            hydra.run.dir = run_dir_text(str(self.paths.root))
        try:
            yield
        finally:
            sys.argv[:] = words
            with read_write(hydra), open_dict(hydra):
                hydra.run.dir = place


def _returned_by(task: Task, cfg: DictConfig, values: RunValues) -> Any:
    """Return what a task returns.

    One that leaves by ``sys.exit()`` has come to its end, and so has a warm-up that ends where it
    is to.
    """
    try:
        return task(cfg)
    except Exception:
        if not values.has_ended_warmup:
            raise
        return None
    except SystemExit as error:
        if error.code in (None, 0) and exit_code_of(error) is None:
            return None
        raise


def _failed(
    record: Record, paths: RunPaths, error: BaseException, values: RunValues
) -> BaseException:
    """Write the record of a run that did not complete, and return the error to raise."""
    code = exit_code_of(error)
    take(record, values)
    record.fail("interrupted" if code is not None else "failed", error)
    if code is not None:
        print(f"interrupted; the record is in {paths.result}", file=sys.stderr)
        return RunEnded(code)
    sentence = " ".join(message_of(error).split())
    cause = f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__
    return RunFailedError(cause, paths.result)


@contextmanager
def _so_many_threads(count: int) -> Iterator[None]:
    """Let numerical libraries compute with so many threads, torch among them."""
    names: Sequence[str] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in names:
        os.environ.setdefault(name, str(count))  # for what is imported from now on
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    if torch is not None and before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch is not None and before != count:
            torch.set_num_threads(before)
