"""Hydra's sweeper for grids: plans, names and skips, launches, and tells how it went.

Hydra makes it by a class in ``hydra_plugins``, which hands over to the one here.
"""

import secrets
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.hydra_internals import writable
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.sweep.apps.swept_app import SweptApp
from coreai_opt.sweep.folder import OWN, SweepFolder, SweepJob
from coreai_opt.sweep.launchers.base import JobEnd, SweepLauncher
from coreai_opt.sweep.launchers.select import sweep_launcher
from coreai_opt.sweep.plan import Plan, Planner
from coreai_opt.sweep.scheduler import Outcome, Scheduler
from coreai_opt.sweep.selection import Selection, select
from coreai_opt.sweep.warmups import add_warmups

RUN_FAILED = 2  # the exit code


class SweepRun:
    """A plan and what becomes of it; handed to the sweeper that Hydra makes.

    Args:
        plan: the points.
        fitting: overrides that Hydra can compose with; those of the points are in the plan.

    Attributes:
        outcomes: how the points ended that are settled.
    """

    def __init__(self, plan: Plan, fitting: Sequence[str] = ()) -> None:
        self.plan, self.fitting = plan, list(fitting)
        self.folder = SweepFolder(plan.root, plan.app)
        self.config: DictConfig | None = None
        self.command_id = secrets.token_hex(4)
        self.outcomes: list[Outcome] = []

    @property
    def has_failed(self) -> bool:
        """Whether a point did not complete."""
        return any(outcome.end != "completed" for outcome in self.outcomes)

    def run(self, launcher: SweepLauncher) -> list[JobReturn]:
        """Run what is to be run, and return the objectives in the order of the points.

        Raises:
            ConfigError: the directory is another sweep's, or its runs are of other code
                and ``sweep.on_code_change=error``.
        """
        if problems := self.folder.problems(self.plan):
            raise ConfigError(problems)
        self.check_ranks(launcher)
        entries = self.folder.entries(self.plan.points)
        selection = select(entries, self.plan.settings, self.plan.app)
        scheduler = self.scheduler(launcher, selection)
        self.folder.enter(self.plan, [*(one.entry for one in selection.settled), *selection.to_run])
        self.save_config()
        self.outcomes = list(selection.settled)
        self._launch(selection, scheduler)
        order = [point.config_hash for point in self.plan.points]
        self.outcomes.sort(key=lambda outcome: order.index(outcome.entry.config_hash))
        return [_job_return(outcome) for outcome in self.outcomes]

    def check_ranks(self, launcher: SweepLauncher) -> None:
        """Refuse runs on several devices whose processes nobody can start.

        Raises:
            ConfigError: what to change.
        """
        configs = [self.plan.config, *(point.config for point in self.plan.points)]
        asked = {self.plan.app.processes(config) for config in configs}
        found = (launcher.problem(processes) for processes in asked)
        if problems := [problem for problem in found if problem is not None]:
            raise ConfigError(problems)

    def save_config(self) -> None:
        """Write what Hydra has composed of the command, as its own sweeper does."""
        if self.config is not None:
            OmegaConf.save(self.config, self.plan.root / "multirun.yaml")

    def scheduler(self, launcher: SweepLauncher, selection: Selection) -> Scheduler:
        """Return what runs the entries of a selection; adds the warm-up runs that they need."""
        # Of the runs, without warm-ups: they compute as they would if nothing was shared. And of
        # all of them: what is left in a later command computes as it would have in the first one.
        jobs = max(len(self.plan.points), len(selection.to_run))
        share = launcher.share(jobs) if selection.to_run else {}
        if self.plan.app.shares_warmups:
            add_warmups(selection, self.plan.root, self.plan.settings, share.get("threads"))
        restarts = {entry.config_hash for entry in selection.restarts}

        def environment(entry: SweepJob) -> JobEnvironment:
            digest, warmup = entry.config_hash, selection.warmup_of.get(entry.config_hash)
            return JobEnvironment(
                mtime_ns=selection.mtimes[digest],
                command_id=self.command_id,
                restart=digest in restarts,
                fail_fast=self.plan.settings.fail_fast,
                config_hash=digest,
                warmup="" if warmup is None else warmup.name,
                warmup_key=entry.point.warmup_key or "",
                ignore=entry.point.ignore,
                **share,
            )

        def launch(entries: Sequence[SweepJob]) -> Sequence[JobEnd | None]:
            return launcher.launch(entries, list(map(environment, entries)))

        scheduler = Scheduler(
            launch,
            selection.mtimes,
            launcher.isolates,
            {digest: job.config_hash for digest, job in selection.warmup_of.items()},
            launcher.starts_in_turn,
        )
        launcher.ready = scheduler.ready
        return scheduler

    def _launch(self, selection: Selection, scheduler: Scheduler) -> None:
        # Drawing takes time to import, and a command that is refused draws nothing.
        from coreai_opt.sweep.progress import show
        from coreai_opt.sweep.summary import print_queue, print_summary

        try:
            with show(self.plan, selection) as listener:
                scheduler.run([*selection.warmups, *selection.to_run], listener)
        finally:
            self.folder.stop(self.command_id).unlink(missing_ok=True)
            self.outcomes += scheduler.outcomes
            print_summary(self.plan, self.outcomes)
            print_queue(selection)


current_sweep: ContextVar[SweepRun | None] = ContextVar("current_sweep", default=None)


class GridSweeps:
    """Crosses the lists of values of a command line; ``hydra/sweeper=grid`` of our own app."""

    app: SweptApp = OWN

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra hands over, and make the launcher for the sweep's directory."""
        self._config, self._context = config, hydra_context
        sweep = current_sweep.get()
        self._is_announced = sweep is not None
        if sweep is None:
            given: Any = OmegaConf.to_container(config.hydra.overrides)
            overrides = [*given["hydra"], *given["task"]]
            loader, name = hydra_context.config_loader, config.hydra.job.config_name
            planner = Planner(loader, name, overrides, self.flags(), self.app)
            sweep = self._planned(planner, loader, name)
        self.sweep_run = sweep
        place_sweep(config, sweep.plan.root)
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def flags(self) -> tuple[str, ...]:
        """Return what was typed besides overrides, as ``--config-dir=DIR``."""
        return ()

    def _planned(self, planner: Planner, loader: ConfigLoader, config_name: str | None) -> SweepRun:
        return SweepRun(planner.plan())

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep; the arguments are in its plan already."""
        returns = self.run()
        if self.sweep_run.has_failed and not self._is_announced:
            self._end()
            raise SystemExit(RUN_FAILED)  # there is nobody else to say it
        return returns

    def run(self) -> list[Any]:
        """Run the sweep, and return how its jobs ended as Hydra's own sweeper does."""
        plan = self.sweep_run.plan
        self.sweep_run.config = self._config
        launcher = sweep_launcher(self._launcher, plan.app.accelerator(plan.config))
        return [self.sweep_run.run(launcher)]

    def _end(self) -> None:
        """Call what Hydra would call if it heard of this end."""
        name = self._config.hydra.job.config_name
        self._context.callbacks.on_multirun_end(config=self._config, config_name=name)


def place_sweep(config: DictConfig, root: Path) -> None:
    """Make a directory the sweep's, for its launcher and for the jobs that compose anew."""
    place = str(root).replace("\\", "\\\\").replace("'", "\\'")
    with writable(config):
        config.hydra.sweep.dir = str(root)
        # As typed: what refers to a job's number cannot be resolved here.
        typed: Any = OmegaConf.to_container(config.hydra.overrides.hydra)
        own = [one for one in typed if not one.startswith("hydra.sweep.")]
        config.hydra.overrides.hydra = [*own, f"hydra.sweep.dir='{place}'"]


def _job_return(outcome: Outcome) -> JobReturn:
    job = JobReturn(overrides=list(outcome.entry.point.overrides))
    job.working_dir = str(outcome.entry.paths.root)
    if outcome.end == "completed":
        job.status, job.return_value = JobStatus.COMPLETED, outcome.value
    else:
        job.status, job.return_value = JobStatus.FAILED, RuntimeError(outcome.cause)
    return job
