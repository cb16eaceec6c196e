"""How jobs stand in SLURM's queue: asked for all of them at once, and not too often."""

import getpass
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coreai_opt.experiment.earlier import read_json
from coreai_opt.experiment.record import write_json

__all__ = [
    "Job",
    "JobState",
    "SlurmQueue",
    "errors_of",
    "read_job",
    "returned",
    "slurm_queue",
    "write_job",
]

# States of a job that SLURM will not run (again) by itself.
OVER = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
UNKNOWN = "UNKNOWN"

LAST = 4000  # characters of what a job has written


@dataclass(frozen=True)
class Job:
    """A job of a cluster that was submitted for a run; kept in the run's ``job.json``.

    Attributes:
        id: as the cluster shows it, ``12`` or ``12_3`` in an array.
        cluster: the cluster's name.
        folder: where its output and what it returns are written.
        since: the stamp of the run's record when it was submitted.
    """

    id: str
    cluster: str
    folder: str
    since: int

    @property
    def logs(self) -> Path:
        """The folder of its output."""
        folder: Path = _paths(self).folder
        return folder


@dataclass(frozen=True)
class JobState:
    """How a job stands: SLURM's state and reason, in its own words."""

    state: str
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has left the queue."""
        return self.state in OVER

    def __str__(self) -> str:
        is_told = self.reason not in ("", "None")
        return f"{self.state} ({self.reason})" if is_told else self.state


def write_job(path: Path, job: Job) -> None:
    """Write which job was submitted for a run.

    Args:
        path: the run's ``job.json``.
        job: the job.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(job))


def read_job(path: Path) -> Job | None:
    """Return the job that was last submitted for a run, None where there is none."""
    content = read_json(path) or {}
    with suppress(TypeError):
        job = Job(**content)
        has_form = all(isinstance(one, str) for one in (job.id, job.cluster, job.folder))
        return job if has_form and isinstance(job.since, int) else None
    return None


class SlurmQueue:
    """This user's jobs in the queue of the cluster that the commands of SLURM talk to.

    What SLURM has said last counts while it does not answer.
    """

    REFRESH_S = 3.0
    TIMEOUT_S = 60.0

    def __init__(self) -> None:
        self._known: dict[str, JobState] = {}
        self._asked = float("-inf")
        self._has_answered = False
        self._over: dict[str, JobState] = {}

    @property
    def is_here(self) -> bool:
        """Whether SLURM's commands are installed."""
        return shutil.which("squeue") is not None

    @property
    def cluster(self) -> str:
        """The name of the cluster; empty where SLURM does not answer."""
        return _cluster_name()

    def expect(self, ids: Sequence[str]) -> None:
        """Count jobs as pending that were submitted just now."""
        self._known |= {one: JobState("PENDING") for one in ids}
        self._asked = float("-inf")

    def state(self, job: Job) -> JobState:
        """Return how a job stands; ``UNKNOWN`` is one that SLURM knows nothing of (any more)."""
        if not self.is_here or job.cluster != self.cluster:
            return JobState(UNKNOWN)
        self._refresh()
        if job.id in self._known:
            return self._known[job.id]
        if job.id not in self._over:
            self._over[job.id] = _state_in_accounting(job.id)
        return self._over[job.id]

    def is_active(self, job: Job) -> bool:
        """Return whether a job waits or runs; false as well for a job of another cluster."""
        if not self.is_here or job.cluster != self.cluster:
            return False
        self._refresh()
        # Where SLURM has not answered yet, nothing is known against the job.
        known = self._known.get(job.id) if self._has_answered else JobState(UNKNOWN)
        return known is not None and not known.is_over

    def _refresh(self) -> None:
        if time.monotonic() - self._asked < self.REFRESH_S:
            return
        told = _output(squeue_command(getpass.getuser()), self.TIMEOUT_S)
        self._asked = time.monotonic()
        if told is not None:
            self._known, self._has_answered = parsed_queue(told), True


def squeue_command(user: str) -> list[str]:
    """Return the command that lists a user's jobs, each job of an array by itself."""
    states = ["--states=all", "--array", "--noheader"]
    return ["squeue", f"--user={user}", *states, "--format=%i|%T|%r"]


def parsed_queue(text: str) -> dict[str, JobState]:
    """Return the states of jobs by their id, as ``squeue_command`` lists them.

    Example:
        >>> parsed_queue("12_0|PENDING|Resources")
        {'12_0': JobState(state='PENDING', reason='Resources')}
    """
    rows = [line.strip().split("|", 2) for line in text.splitlines()]
    return {row[0]: JobState(row[1], row[2]) for row in rows if len(row) == 3}


def _state_in_accounting(job_id: str) -> JobState:
    """Return the state of a job that the controller has forgotten, by default after 5 minutes."""
    command = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=State"]
    told = _output([*command, f"--jobs={job_id}"], SlurmQueue.TIMEOUT_S) or ""
    words = told.split()  # "CANCELLED by 0"
    return JobState(words[0].rstrip("+")) if words else JobState(UNKNOWN)


@cache
def _cluster_name() -> str:
    told = _output(["scontrol", "show", "config"], SlurmQueue.TIMEOUT_S) or ""
    named = [line.partition("=")[2] for line in told.splitlines() if line.startswith("ClusterName")]
    return named[0].strip() if named else ""


def _output(command: Sequence[str], timeout_s: float) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=timeout_s
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache
def slurm_queue() -> SlurmQueue:
    """Return the queue that this process asks."""
    return SlurmQueue()


def returned(job: Job) -> Any:
    """Return what a job has returned, None where it has returned nothing.

    It was written by this sweep's own job, through submitit.
    """
    from submitit.core.utils import pickle_load

    path = _paths(job).result_pickle
    if not path.exists():
        return None
    kind, value = pickle_load(path)
    return value if kind == "success" else RuntimeError(_what_was_raised(str(value)))


def errors_of(job: Job) -> str:
    """Return the end of what a job has written to its error output."""
    try:
        written: str = _paths(job).stderr.read_text(encoding="utf-8", errors="replace")
        return written[-LAST:]
    except OSError:
        return ""


def _paths(job: Job) -> Any:
    from submitit.core.utils import JobPaths

    return JobPaths(folder=Path(job.folder), job_id=job.id, task_id=0)


def _what_was_raised(trace: str) -> str:
    """Return the last exception of a traceback; lines of its message that are indented are left."""
    lines = [line for line in trace.splitlines() if line.strip() and not line[0].isspace()]
    return lines[-1].strip() if lines else "nothing is known of it"
