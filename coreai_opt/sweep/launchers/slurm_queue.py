"""How jobs stand in SLURM's queue: asked for all of them at once, and not too often."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coreai_opt.runs.existing_run import read_json
from coreai_opt.runs.run_record import write_json

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

SLURMS_MAX_ARRAY_SIZE = 1001  # by default

LAST = 4000  # characters of what a job has written


@dataclass(frozen=True)
class Job:
    """A job of a cluster that was submitted for a run; kept in the run's ``job.json``.

    Attributes:
        id: as the cluster shows it, ``12`` or ``12_3`` in an array.
        cluster: the cluster's name.
        folder: where its output and what it returns are written.
        since: time of change of the run's record when it was submitted, in ns.
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

    What SLURM has said last counts while it does not answer. May be asked by several threads.
    """

    REFRESH_S = 3.0
    TIMEOUT_S = 60.0
    # The file system may show what a job has written later than the queue shows its end.
    LAG_S = 60.0

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._known: dict[str, JobState] = {}
        self._expected: dict[str, float] = {}
        self._asked = float("-inf")
        self._has_answered = False
        self._over: dict[str, JobState] = {}
        self._settings: dict[str, str] = {}
        self._seen_over: dict[str, float] = {}

    @property
    def is_here(self) -> bool:
        """Whether SLURM's commands are installed."""
        return shutil.which("squeue") is not None

    @property
    def cluster(self) -> str:
        """The name of the cluster; empty while SLURM does not answer."""
        return self._setting("ClusterName")

    @property
    def most_at_once(self) -> int:
        """How many jobs an array may have."""
        told = self._setting("MaxArraySize")
        return max(1, int(told)) if told.isdecimal() else SLURMS_MAX_ARRAY_SIZE

    def expect(self, ids: Sequence[str]) -> None:
        """Count jobs as pending that were submitted just now, until they are listed."""
        with self._lock:
            now = time.monotonic()
            self._expected |= dict.fromkeys(ids, now)
            self._known |= {one: JobState("PENDING") for one in ids}

    def state(self, job: Job) -> JobState:
        """Return how a job stands; ``UNKNOWN`` is one that SLURM knows nothing of (any more)."""
        with self._lock:
            if not self._is_of_this_cluster(job):
                return JobState(UNKNOWN)
            self._refresh()
            if job.id in self._known:
                return self._known[job.id]
            if job.id in self._over:
                return self._over[job.id]
            state = _state_in_accounting(job.id)
            if state.is_over:
                self._over[job.id] = state
            return state

    def is_active(self, job: Job) -> bool:
        """Return whether a job waits or runs; false as well for a job of another cluster."""
        with self._lock:
            if not self._is_of_this_cluster(job):
                return False
            self._refresh()
            # Where SLURM has not answered yet, nothing is known against the job.
            known = self._known.get(job.id) if self._has_answered else JobState(UNKNOWN)
            return known is not None and not known.is_over

    def may_lag(self, job: Job) -> bool:
        """Return whether what a job has written may not be seen yet, its end being so recent."""
        since = self._seen_over.setdefault(job.id, time.monotonic())
        return time.monotonic() - since < self.LAG_S

    def _is_of_this_cluster(self, job: Job) -> bool:
        # A name that is not known is no other one.
        return self.is_here and (not (job.cluster and self.cluster) or job.cluster == self.cluster)

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._asked < self.REFRESH_S:
            return
        self._asked = now
        told = _output(squeue_command(os.getuid()), self.TIMEOUT_S)
        if told is None:
            return
        listed = parsed_queue(told)
        # An answer may be older than a job.
        recent = {one: at for one, at in self._expected.items() if one not in listed}
        self._expected = {one: at for one, at in recent.items() if now - at < self.LAG_S}
        pending = dict.fromkeys(self._expected, JobState("PENDING"))
        self._known, self._has_answered = {**pending, **listed}, True

    def _setting(self, name: str) -> str:
        if not self._settings:
            told = _output(["scontrol", "show", "config"], self.TIMEOUT_S) or ""
            pairs = (line.partition("=") for line in told.splitlines() if "=" in line)
            self._settings = {key.strip(): value.strip() for key, _, value in pairs}
        return self._settings.get(name, "")


def squeue_command(user: int) -> list[str]:
    """Return the command that lists a user's jobs, each job of an array by itself.

    Args:
        user: the number: names come from the environment, where sudo leaves another one.
    """
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
    try:
        kind, value = pickle_load(path)
    except Exception as error:  # an exception of the user's own, say, that cannot be made again
        return RuntimeError(f"what it has returned cannot be read ({error}); it is in {path}")
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
