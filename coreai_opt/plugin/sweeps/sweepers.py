"""Sweeps of any app: ``hydra/sweeper=grid``, made by Hydra through the plugin."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.errors import ConfigError, Problem, refuse
from coreai_opt.config.hydra_internals import writable
from coreai_opt.plugin.jobs.command import command_of
from coreai_opt.plugin.jobs.task import RecordedTask
from coreai_opt.plugin.sweeps.app import AnyApp
from coreai_opt.runs.signals import CTRL_C
from coreai_opt.sweep.jobs import job_of
from coreai_opt.sweep.plan import Planner
from coreai_opt.sweep.sweeper import GridSweeps, SweepRun


@contextmanager
def as_sentences() -> Iterator[None]:
    """Let what is wrong with a command end it in one sentence each, with exit code 1."""
    try:
        yield
    except ConfigError as error:
        refuse(error.problems)
        raise
    except (HydraException, OmegaConfBaseException) as error:
        refuse([Problem("", " ".join(str(error).split()))])
    except OSError as error:
        what = "the operating system" if error.filename is None else repr(str(error.filename))
        allowed = "allowed: hydra.sweep.dir=DIR, writable"
        refuse([Problem("", f"{what} refuses: {error.strerror or error}; {allowed}")])
    except KeyboardInterrupt:
        print("interrupted by Ctrl-C", file=sys.stderr)
        sys.exit(CTRL_C)


def _quiet_launchers(config: DictConfig) -> None:
    """Let a sweep itself say which runs it launches."""
    if OmegaConf.select(config, "hydra.hydra_logging.root.level") is not None:
        with writable(config):
            config.hydra.hydra_logging.root.level = "WARNING"


class OfAnyApp(GridSweeps):
    """What the sweepers of any app have in common."""

    app: AnyApp

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Plan the sweep, and put a record around the app's task."""
        self._command = command_of(config)
        self.app = AnyApp(self._command.name, self._command.program, self._command.flags)
        recorded = job_of(RecordedTask(task_function, self._command), self.app.knob("fail_fast"))
        _quiet_launchers(config)
        with as_sentences():
            super().setup(hydra_context=hydra_context, task_function=recorded, config=config)

    def flags(self) -> tuple[str, ...]:
        return self._command.flags

    def _planned(self, planner: Planner, loader: ConfigLoader, config_name: str | None) -> SweepRun:
        self._planner, self._loader = planner, loader
        self.app.prepare(planner)
        return super()._planned(planner, loader, config_name)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep, or show what it would be."""
        with as_sentences():
            if not self.app.is_preview:
                return super().sweep(arguments)
            if problems := self.preview():
                raise ConfigError(problems)
        return []

    def preview(self) -> list[Problem]:
        """Print what the sweep would be, and return what is in its way."""
        from coreai_opt.sweep.preview.show import show_sweep

        return show_sweep(self.sweep_run.plan)


class AnyGrid(OfAnyApp):
    """Crosses the lists of values of a command line, in an app of somebody else."""
