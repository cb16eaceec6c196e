"""joblib: workers of this machine that share its cores and its GPUs."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import compress, islice
from typing import Any

from hydra.core.singleton import Singleton
from hydra_plugins.hydra_joblib_launcher import _core
from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor

from coreai_opt._private_names import private_name
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.distributed.gpu_slots import visible_devices
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.sweep.folder import SweepJob
from coreai_opt.sweep.launchers.base import JobEnd, SweepLauncher

execute_job = private_name(_core, "execute_job", "hydra-joblib-launcher 1.2.0, below 1.3")

NODE = "hydra.launcher"

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
POLL_S = 0.2

MANY = 1000  # jobs a core: more than will ever run side by side


class JoblibLauncher(SweepLauncher):
    """Runs jobs in worker processes of this machine.

    A worker that is killed takes the others down with it, which is joblib's way; what was at work
    goes on from its checkpoint.
    """

    starts_in_turn = True

    def __init__(self, launcher: Any, accelerator: str = "auto") -> None:
        super().__init__(launcher, accelerator)
        # Our own settings: joblib itself knows nothing of GPUs.
        settings = launcher.joblib
        given = {"gpus": settings.pop("gpus", None), "n_jobs": settings.get("n_jobs", -1)}
        given["jobs_per_gpu"] = settings.pop("jobs_per_gpu", 1)
        _check(given)
        self._asked, self._jobs_per_gpu = int(given["n_jobs"]), int(given["jobs_per_gpu"])
        self._devices = [] if accelerator == "cpu" else visible_devices(given["gpus"])

    def side_by_side(self, jobs: int) -> int:
        """Return how many of so many jobs run at the same time.

        Args:
            jobs: how many there are, >= 1.
        """
        cores = len(os.sched_getaffinity(0))
        most = self._asked if self._asked > 0 else max(1, cores + 1 + self._asked)
        places = len(self._devices) * self._jobs_per_gpu
        if places:  # more would only wait for one
            most = places if self._asked < 0 else min(most, places)
        return max(1, min(most, jobs))

    def share(self, jobs: int) -> dict[str, Any]:
        cores = len(os.sched_getaffinity(0))
        return {
            # Not by how many there are: what is launched again alone computes as it did before.
            "threads": max(1, cores // self.side_by_side(cores * MANY)),
            "devices": tuple(self._devices),
            "jobs_per_device": self._jobs_per_gpu,
        }

    def launch(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> Sequence[JobEnd | None]:
        # Not by how many there are: with one at a time joblib works in this very process, and a run
        # that takes its process down, launched again alone, would end the sweep.
        at_once = self.side_by_side(len(os.sched_getaffinity(0)) * MANY)
        if at_once > 1 and not all(self.ready(entries)):
            return self._launch_in_turn(entries, environments, at_once)
        self._launcher.joblib["n_jobs"] = max(at_once, 2) if len(entries) == 1 else at_once
        return super().launch(entries, environments)

    def _launch_in_turn(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment], at_once: int
    ) -> Sequence[JobEnd | None]:
        """Run jobs in joblib's workers, each as soon as what it waits for has ended."""
        first, overrides = self._numbered(entries, environments)
        job_of, state = self._launcher, Singleton.get_state()
        context = (job_of.hydra_context, job_of.config, job_of.task_function, state)
        executor = get_reusable_executor(max_workers=at_once, env=_worker_environment(at_once))
        waiting, running = list(range(len(entries))), dict[Any, int]()
        ends: list[JobEnd | None] = [None] * len(entries)
        try:
            while True:
                ready = compress(waiting, self.ready([entries[at] for at in waiting]))
                for at in islice(ready, at_once - len(running)):
                    job = executor.submit(execute_job, first + at, overrides[at], *context)
                    running[job] = at
                waiting = [at for at in waiting if at not in running.values()]
                if not running:  # what is left waits for a run that has not ended
                    return ends
                for job in wait(running, POLL_S, FIRST_COMPLETED).done:
                    ends[running.pop(job)] = job.result()
        finally:
            # Left open it would be what joblib itself takes for the next launch.
            executor.shutdown(kill_workers=bool(running))


def _worker_environment(workers: int) -> dict[str, str]:
    """Return what joblib sets for its workers: each computes with its share of the cores."""
    threads = str(max(1, cpu_count() // workers))
    return {name: os.environ.get(name, threads) for name in THREADS}


def _check(given: Mapping[str, Any]) -> None:
    gpus = given["gpus"]
    is_list = isinstance(gpus, Sequence) and not isinstance(gpus, str)
    wrong = {
        "gpus": (not (gpus is None or is_list or _is_count(gpus, 0)), "null, 2, [0,3]"),
        "jobs_per_gpu": (not _is_count(given["jobs_per_gpu"], 1), "1 or more"),
        "n_jobs": (
            not (isinstance(given["n_jobs"], int) and given["n_jobs"] != 0),
            "1 or more, -1 = as many as there is room for",
        ),
    }
    problems = [
        Problem(
            f"{NODE}.{key}", f"{NODE}.{key}={given[key]}: is no such number; allowed: {allowed}"
        )
        for key, (is_wrong, allowed) in wrong.items()
        if is_wrong
    ]
    if problems:
        raise ConfigError(problems)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
