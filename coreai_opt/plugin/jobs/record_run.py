"""Record of a single run of any app: ``python their_app.py +record=on``."""

import atexit
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from coreai_opt.config.any_config import plain_config
from coreai_opt.config.hydra_internals import raised_by, writable
from coreai_opt.plugin.experiment import any_config, result_of
from coreai_opt.plugin.jobs.command import command_of
from coreai_opt.plugin.jobs.record import new_record, take
from coreai_opt.plugin.settings import AnySweepSettings
from coreai_opt.runs.context import only_process_in
from coreai_opt.runs.paths import INNER, RunPaths
from coreai_opt.runs.processes import is_main_process
from coreai_opt.runs.run_record import Heartbeat, Progress
from coreai_opt.runs.values import RunValues

OURS = (".AnyAppGrid", ".AnyAppSearch")


class RecordRun(Callback):
    """Writes the record of a job: of a single run, or of one in a sweep by another sweeper.

    Jobs of our own sweepers have one in any case. A run that a signal ends says nothing to Hydra:
    its record says ``interrupted`` when the process ends.
    """

    def __init__(self, **settings: Any) -> None:
        self._run: _Recorded | None = None

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweeper = str(config.hydra.sweeper.get("_target_"))
        is_ours = config.hydra.mode == RunMode.MULTIRUN and sweeper.endswith(OURS)
        if not is_ours and is_main_process():
            self._run = _Recorded(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if self._run is not None:
            self._run.end(job_return)
            self._run = None


class _Recorded:
    """The record of a job that is at work."""

    def __init__(self, config: DictConfig) -> None:
        task = config.copy()
        with writable(task):
            del task["hydra"]
        hydra: Any = HydraConfig.get()
        paths = RunPaths(Path(hydra.runtime.output_dir), INNER)
        paths.home.mkdir(parents=True, exist_ok=True)
        self._settings = AnySweepSettings()
        with ExitStack() as stack:
            stack.enter_context(only_process_in(paths))
            known = any_config(task, hydra, self._settings)
            record = new_record(paths, plain_config(task), known, command_of(config))
            self._values = stack.enter_context(RunValues(Progress(), paths.home))
            beats = Heartbeat(paths.progress, self._values.progress, True, lambda: record.seconds)
            stack.enter_context(beats)
            self._record, self._open = record, stack.pop_all()
        atexit.register(self._lost)

    def end(self, job: JobReturn) -> None:
        """Write how the job has ended."""
        atexit.unregister(self._lost)
        record, values = self._record, self._values
        with self._open:
            values.finish()
            if job.status == JobStatus.COMPLETED:
                take(record, values, result_of(job.return_value, values.metrics, self._settings))
                record.complete()
            else:
                take(record, values)
                record.fail("failed", raised_by(job))

    def _lost(self) -> None:
        with self._open:
            take(self._record, self._values)
            self._record.fail("interrupted", SystemExit("the process has ended before the job"))
