"""What belongs to one run while it is made: where it writes, how it starts, what may end it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from coreai_opt.config.errors import RunBusyError
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.resume import Start
from coreai_opt.runs.run_record import Progress, Record
from coreai_opt.runs.signals import Interruptions


@dataclass(frozen=True)
class RunContext:
    """One process at work on one run."""

    paths: RunPaths
    record: Record
    progress: Progress
    start: Start
    interruptions: Interruptions
    environment: JobEnvironment | None = None


@contextmanager
def only_process_in(paths: RunPaths) -> Iterator[None]:
    """Keep other processes out of a run directory for as long as this one lives.

    Raises:
        RunBusyError: another one is in it.
    """
    lock = FileLock(paths.lock, fallback_to_soft=False)
    try:
        held: AbstractContextManager[Any] = lock.acquire(timeout=0)
    except Timeout as error:
        sentence = (
            f"{paths.root}: another process is at work in it; allowed: wait for it, or end it"
        )
        raise RunBusyError.of("hydra.run.dir", sentence) from error
    except (NotImplementedError, OSError):
        # A file system without locks: the heartbeat alone says that somebody is at work.
        held = nullcontext()
    with held:
        yield
