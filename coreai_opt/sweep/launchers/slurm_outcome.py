"""What it means for a run that its job has left the queue."""

import re

from hydra.core.utils import JobReturn, JobStatus

from coreai_opt.config.errors import RunInterruptedError
from coreai_opt.config.hydra_internals import raised_by
from coreai_opt.sweep.launchers.base import CrashedJob, JobEnd, failed_job
from coreai_opt.sweep.launchers.slurm_queue import (
    UNKNOWN,
    Job,
    JobState,
    errors_of,
    returned,
    slurm_queue,
)

OUT_OF_MEMORY = "OUT_OF_MEMORY"
KILLED_BY_MEMORY = ("FAILED", "CANCELLED", "COMPLETED")

# Where memory is watched without cgroups the state only says that the job has failed.
OF_MEMORY = re.compile(
    r"^(slurmstepd|srun).*(memory limit|oom.?kill|out.of.memory)", re.IGNORECASE | re.MULTILINE
)


def job_end(job: Job | None) -> JobEnd | None:
    """Return how a job ended that has left the queue, None where none has, as far as is seen."""
    if job is None:
        return None
    queue = slurm_queue()
    state = queue.state(job)
    if not (state.is_over or state.state == UNKNOWN):
        return None
    value = returned(job)
    is_done = value is None or (isinstance(value, JobReturn) and value.status != JobStatus.FAILED)
    if state.state == "COMPLETED" and is_done and queue.may_lag(job):
        return None
    return outcome_of_job(job, state, value, errors_of(job))


def outcome_of_job(job: Job, state: JobState, value: object, errors: str = "") -> JobEnd:
    """Return how a job ended whose run has no record of its end.

    A job that somebody has cancelled is left alone; one that has run out of memory would do so
    again. Whatever else took its process is the cluster's affair, and the run goes on in another
    job.

    Args:
        job: the job.
        state: SLURM's last word on it.
        value: what it has returned, None = nothing.
        errors: the end of what it has written to its error output.
    """
    error = value
    if isinstance(value, JobReturn):
        error = raised_by(value) if value.status == JobStatus.FAILED else None
    told = f"SLURM job {job.id} {state}"
    is_memory = state.state in KILLED_BY_MEMORY and OF_MEMORY.search(errors)
    if state.state == OUT_OF_MEMORY or is_memory:
        sentence = f"{told}: killed for more memory than it asked for"
        return CrashedJob(f"{sentence}; allowed: a larger hydra.launcher.mem_gb", "failed")
    is_signal = isinstance(error, RunInterruptedError)
    if state.state == "CANCELLED":
        return CrashedJob(f"{told}: somebody has cancelled it", "interrupted")
    if isinstance(error, BaseException) and not is_signal:
        return value if isinstance(value, JobReturn) else failed_job(error)
    return CrashedJob(f"{told} ({error})" if is_signal else f"{told}; its output is in {job.logs}")
