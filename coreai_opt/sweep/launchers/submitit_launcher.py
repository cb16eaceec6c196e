"""SLURM through submitit: jobs that stand in the queue while the sweep watches their records."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn

from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.signals import signals_wait
from coreai_opt.sweep.folder import SweepJob
from coreai_opt.sweep.launchers.base import (
    CrashedJob,
    JobEnd,
    NotLaunchedError,
    SweepLauncher,
    failed_job,
)
from coreai_opt.sweep.launchers.slurm_queue import Job, SlurmQueue, slurm_queue, write_job

# What the executor is made with; the rest are the parameters of its jobs.
OF_THE_EXECUTOR = ("submitit_folder", "max_num_timeout")

# What submitit calls alike for all clusters; other parameters carry the cluster's name.
OF_ALL_CLUSTERS = (
    "timeout_min",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "mem_gb",
    "nodes",
    "name",
    "stderr_to_stdout",
)

# Until jobs are submitted again that the cluster did not take when it had taken others.
FIRST_WAIT_S, LAST_WAIT_S = 30.0, 600.0

GPUS = ("gpus_per_node", "gpus_per_task", "cpus_per_gpu", "mem_per_gpu")


def executor_parameters(
    params: Mapping[str, Any], cluster: str, accelerator: str = "auto"
) -> dict[str, Any]:
    """Return what submitit's executor is told of each job.

    Args:
        params: the launcher's settings.
        cluster: ``slurm`` or ``local``.
        accelerator: ``trainer.accelerator``; jobs that compute on the CPU ask for no GPU.

    Example:
        >>> params = {"mem_gb": 4, "partition": "main", "gpus_per_node": 1}
        >>> executor_parameters(params, "slurm", "cpu")
        {'mem_gb': 4, 'slurm_partition': 'main'}
    """
    given = {key: value for key, value in params.items() if key not in OF_THE_EXECUTOR}
    if accelerator == "cpu":
        given = {key: value for key, value in given.items() if key not in GPUS}
    return {
        key if key in OF_ALL_CLUSTERS else f"{cluster}_{key}": value for key, value in given.items()
    }


class _SubmititLauncher(SweepLauncher):
    """What SLURM and processes of this machine have in common."""

    isolates = True
    cluster: str

    def _submit(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> list[Any]:
        """Return submitit's jobs, in order."""
        import submitit

        first, overrides = self._numbered(entries, environments)
        params = self._launcher.params
        made_with = {
            f"{self.cluster}_{key}": params[key] for key in OF_THE_EXECUTOR[1:] if key in params
        }
        executor = submitit.AutoExecutor(
            params["submitit_folder"], cluster=self.cluster, **made_with
        )
        executor.update_parameters(**executor_parameters(params, self.cluster, self._accelerator))
        state = Singleton.get_state()
        calls = [
            (texts, "hydra.sweep.dir", first + at, f"job_id_for_{first + at}", state)
            for at, texts in enumerate(overrides)
        ]
        jobs: list[Any] = executor.map_array(self._launcher, *zip(*calls, strict=True))
        return jobs


class SlurmLauncher(_SubmititLauncher):
    """Submits an array of jobs; what becomes of them, their records and the queue say."""

    cluster = "slurm"

    def __init__(self, launcher: Any, accelerator: str = "auto") -> None:
        super().__init__(launcher, accelerator)
        self._has_submitted, self._not_before, self._wait_s = False, 0.0, FIRST_WAIT_S

    def share(self, jobs: int) -> dict[str, Any]:
        cpus = self._launcher.params.get("cpus_per_task")
        return {} if cpus is None else {"threads": int(cpus)}

    def problem(self, processes: int | None) -> Problem | None:
        params = self._launcher.params
        tasks = int(params.get("tasks_per_node") or 1) * int(params.get("nodes") or 1)
        if processes is None or tasks == processes:
            return None
        name = "hydra.launcher.tasks_per_node"
        return Problem(
            name,
            f"a job has {tasks} tasks ({name} times nodes), and trainer.devices times num_nodes "
            f"is {processes}; allowed: as many tasks as processes, {name}=trainer.devices "
            "and hydra.launcher.nodes=trainer.num_nodes",
        )

    def launch(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> Sequence[JobEnd | None]:
        queue = slurm_queue()
        if not queue.is_here:
            sentence = "hydra/launcher=slurm: SLURM's commands (sbatch, squeue) are not found"
            raise ConfigError.of(
                "hydra/launcher", f"{sentence}; allowed: a login node of a cluster"
            )
        if time.monotonic() < self._not_before:
            raise NotLaunchedError
        at_once = queue.most_at_once
        for first in range(0, len(entries), at_once):
            part = slice(first, first + at_once)
            self._submit_array(queue, entries[part], environments[part])
        return []

    def _submit_array(
        self, queue: SlurmQueue, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> None:
        # A signal between the submission and the files that tell of it would lose the jobs.
        with signals_wait():
            try:
                # What sbatch says is in the error, and need not stand there twice.
                with redirect_stderr(StringIO()), _outside_of_jobs():
                    jobs = self._submit(entries, environments)
            except Exception as error:
                raise self._refused(error) from error
            self._has_submitted, self._wait_s = True, FIRST_WAIT_S
            folder = str(self._launcher.params["submitit_folder"])
            for entry, job in zip(entries, jobs, strict=True):
                submitted = Job(str(job.job_id), queue.cluster, folder, entry.mtime_ns())
                try:
                    write_job(entry.paths.job, submitted)
                except OSError as error:
                    told = f"SLURM job {job.job_id} was submitted, and {entry.paths.job} cannot be"
                    sentence = f"{told} written ({error.strerror}); to end it: scancel {job.job_id}"
                    raise ConfigError.of("paths.sweep_root", sentence) from error
            queue.expect([str(job.job_id) for job in jobs])

    def _refused(self, error: Exception) -> Exception:
        """Return what to raise: settings that are wrong, or a cluster that takes nothing now."""
        sentence = _refusal(error)
        if not self._has_submitted:
            return ConfigError.of("hydra.launcher", sentence)
        print(f"{sentence}; tried again in {self._wait_s:g} s", file=sys.stderr)
        self._not_before = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LAST_WAIT_S)
        return NotLaunchedError(sentence)


class LocalSubmititLauncher(_SubmititLauncher):
    """Runs a process for each job, all at once, on this machine."""

    cluster = "local"
    POLL_S = 0.2
    _threads: int | None = None

    def share(self, jobs: int) -> dict[str, Any]:
        # What is launched again alone computes as it did before.
        if self._threads is None:
            self._threads = max(1, len(os.sched_getaffinity(0)) // max(jobs, 1))
        return {"threads": self._threads}

    def launch(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> Sequence[JobEnd | None]:
        jobs = self._submit(entries, environments)
        while not all(job.done() for job in jobs):
            time.sleep(self.POLL_S)
        return [_end_of(job) for job in jobs]


def _end_of(job: Any) -> JobEnd:
    error = job.exception()
    if error is None:
        returned: JobReturn = job.results()[0]
        return returned
    # The process is gone, or what it raised kept Hydra from running the job at all.
    with suppress(AttributeError):
        if job.paths.result_pickle.exists():
            return failed_job(error)
    return CrashedJob(f"process {job.job_id} ended and left no result")


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Submit as from a login node: what SLURM tells a job of itself would be taken for options."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    from submitit.helpers import clean_env

    kept = {key: os.environ[key] for key in os.environ if key.startswith(("SBATCH_", "SLURM_CONF"))}
    with clean_env():
        os.environ.update(kept)
        yield


def _refusal(error: Exception) -> str:
    """Return what ``sbatch`` has against the jobs, and what to change."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if "error:" in line]
    reasons = dict.fromkeys(line.rpartition("error:")[2].strip() for line in told)
    said = "; ".join(reasons) or " ".join(lines)
    sentence = f"hydra/launcher=slurm: the jobs were not taken: {said}"
    if "generic resource" in said.lower() or "gres" in said.lower():
        allowed = "hydra.launcher.gpus_per_node=null, or trainer.accelerator=cpu"
        return f"{sentence}; allowed where the cluster has no such GPUs: {allowed}"
    return f"{sentence}; allowed: settings of hydra.launcher that this cluster takes"
