"""What a job of a sweep does about its own end, so that the other jobs go on."""

import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from coreai_opt.config.errors import RunInterruptedError, SweepStoppedError
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.signals import CTRL_C, exit_code_of

Task = Callable[[DictConfig], Any]


def job_of(task: Task, fail_fast: str = "sweep.fail_fast") -> Task:
    """Return a task whose end in a sweep is the end of one job.

    Ctrl-C ends the job that is at work; the second one ends the sweep, as SIGTERM does at once. In
    a worker process every signal ends the job alone.

    Args:
        task: takes the composed config, returns the objective.
        fail_fast: key of the setting that ends a sweep after a failure.
    """
    # Processes of other machines, and of containers, may have the same number.
    sweep_process, stops = _this_process(), [0]

    @functools.wraps(task)
    def run_job(cfg: DictConfig) -> Any:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            return task(cfg)
        with _worker_of(sweep_process):
            return run_one(cfg)

    def run_one(cfg: DictConfig) -> Any:
        from coreai_opt.sweep.folder import SweepFolder

        environment = JobEnvironment.received() or JobEnvironment()
        stops_all = environment.fail_fast
        stop = SweepFolder(Path(HydraConfig.get().sweep.dir)).stop(environment.command_id)
        if stops_all and stop.exists():
            raise SweepStoppedError(f"not begun: another run had failed ({fail_fast}=true)")
        try:
            return task(cfg)
        except Exception:
            if stops_all and not environment.warmup_key:
                stop.touch()
            raise
        except BaseException as error:
            code = exit_code_of(error)
            if code == CTRL_C:
                stops[0] += int(getattr(error, "pressed", 1))  # how often, until the run ended
            is_last = code == CTRL_C and stops[0] < 2
            if code is not None and (is_last or _this_process() != sweep_process):
                raise RunInterruptedError(code) from error
            raise

    return run_job


class _Worker:
    """This process, where it works for the process of a sweep that has started it.

    Workers of joblib wait for jobs minutes after that one was killed, some for ever, and hold their
    memory and their GPU.
    """

    POLL_S, IDLE_S = 0.5, 5.0

    def __init__(self, parent: int) -> None:
        self._parent, self._at_work, self._since = parent, 0, time.monotonic()
        threading.Thread(target=self._run, name="sweep", daemon=True).start()

    @property
    def is_left(self) -> bool:
        """Whether the process of the sweep is gone."""
        return os.getppid() != self._parent

    @contextmanager
    def job(self) -> Iterator[None]:
        """Be at work on a job; one that stood in a queue of a sweep that is gone is not begun."""
        if self.is_left:
            os._exit(1)
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            self._since = time.monotonic()

    def _run(self) -> None:
        while not self.is_left or self._at_work or time.monotonic() - self._since < self.IDLE_S:
            time.sleep(self.POLL_S)
        os._exit(1)


_worker: list[_Worker] = []


@contextmanager
def _worker_of(sweep_process: tuple[str, int]) -> Iterator[None]:
    """Let a worker of a sweep end when that is gone, after the job that it is at work on."""
    host, process = sweep_process
    if not _worker and (socket.gethostname(), os.getppid()) == (host, process):
        _worker.append(_Worker(process))
    if _worker and process != os.getpid():
        with _worker[0].job():
            yield
    else:
        yield


def _this_process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()
