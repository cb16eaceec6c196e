"""What a sweep asks of a launcher, and what it hears of jobs whose process is gone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.utils import JobReturn, JobStatus

from coreai_opt.config.errors import Problem
from coreai_opt.distributed.ranks import is_command, launch_problem
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.sweep.folder import SweepJob


@dataclass(frozen=True)
class CrashedJob:
    """A job whose process is gone, and that returned nothing.

    Attributes:
        cause: what is known of it, in one sentence.
        end: how the run has ended for good, None = launching it again may help.
    """

    cause: str
    end: Literal["failed", "interrupted"] | None = None


JobEnd = JobReturn | CrashedJob


def failed_job(error: BaseException) -> JobReturn:
    """Return how Hydra says that a job has raised an error."""
    job = JobReturn()
    job.status, job.return_value = JobStatus.FAILED, error
    return job


class NotLaunchedError(Exception):
    """Nothing could be launched just now; it is to be tried again."""


class SweepLauncher:
    """Launches entries through one of Hydra's launchers, each into its own directory.

    Args:
        launcher: as Hydra has set it up.
        accelerator: ``trainer.accelerator`` of the sweep.
    """

    isolates = False  # whether a job whose process is killed leaves the others alone
    starts_in_turn = False  # whether a launch starts each job when that one is ready

    def __init__(self, launcher: Any, accelerator: str = "auto") -> None:
        self._launcher, self._number = launcher, 0
        self._accelerator = accelerator
        self.ready: Callable[[Sequence[SweepJob]], list[bool]] = lambda jobs: [True] * len(jobs)

    def share(self, jobs: int) -> dict[str, Any]:
        """Return the share of the machine that each of so many jobs has, by field."""
        return {}

    def problem(self, processes: int | None) -> Problem | None:
        """Return why jobs of so many processes cannot be launched, None where they can.

        Args:
            processes: ranks of a job, None = only the job can tell.
        """
        kind = type(self._launcher)
        target = f"{kind.__module__}.{kind.__qualname__}"
        return launch_problem(target, processes, is_command(), by_cluster=False)

    def launch(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> Sequence[JobEnd | None]:
        """Return how the jobs ended, in order; nothing where they stand in a queue from now on.

        None = not started: the warm-up run that it waits for has not ended.

        Args:
            entries: what to run.
            environments: of each job.
        """
        first, jobs = self._numbered(entries, environments)
        returns: Sequence[JobReturn] = self._launcher.launch(jobs, initial_job_idx=first)
        return returns

    def _numbered(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> tuple[int, list[list[str]]]:
        """Return the number of the first job, and the overrides of each."""
        first, self._number = self._number, self._number + len(entries)
        jobs = [
            [
                *entry.point.overrides,
                f"hydra.sweep.subdir='{entry.name}'",
                environment.override(),
            ]
            for entry, environment in zip(entries, environments, strict=True)
        ]
        return first, jobs
