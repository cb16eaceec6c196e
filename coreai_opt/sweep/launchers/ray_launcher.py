"""Ray: tasks of a cluster, or of this machine."""

import os
import socket
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from omegaconf import OmegaConf, open_dict

from coreai_opt._private_names import private_name
from coreai_opt.config.errors import ConfigError
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.sweep.folder import SweepJob
from coreai_opt.sweep.launchers.base import CrashedJob, JobEnd, SweepLauncher, failed_job

# What only makes sense for a cluster that this command starts.
OF_A_NEW_CLUSTER = ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard")

LOOPBACK = ("127.", "localhost:", "[::1]")
CONNECT_S, POLL_S = 10.0, 0.5

KNOWN = "hydra-ray-launcher 1.2.2, below 1.3"

# A cluster of our own is for this machine alone: it listens on loopback, as Ray does by itself on
# macOS and Windows, and reports to nobody.
OF_OUR_OWN = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def joins(given: Mapping[str, Any], address: str | None) -> bool:
    """Return whether a cluster is joined that runs already.

    Args:
        given: ``hydra.launcher.ray.init``.
        address: ``RAY_ADDRESS`` of the environment, None where it is not set.
    """
    return (given.get("address") or address) not in (None, "local")


def init_arguments(given: Mapping[str, Any], address: str | None) -> dict[str, Any]:
    """Return what ``ray.init`` is called with.

    Args:
        given: ``hydra.launcher.ray.init``; null is left out.
        address: ``RAY_ADDRESS`` of the environment, None where it is not set.

    Example:
        >>> init_arguments({"address": "10.0.0.1:6379", "num_cpus": 4}, None)
        {'address': '10.0.0.1:6379'}
        >>> init_arguments({"address": None, "num_cpus": 4}, None)
        {'num_cpus': 4, 'address': 'local'}
    """
    told = {key: value for key, value in given.items() if value is not None}
    if joins(given, address):
        return {key: value for key, value in told.items() if key not in OF_A_NEW_CLUSTER}
    # Without this Ray joins whatever was started on this machine by ray start.
    return {**told, "address": "local"}


def remote_arguments(
    given: Mapping[str, Any], has_gpus: bool, accelerator: str = "auto"
) -> dict[str, Any]:
    """Return what each task asks of the cluster.

    Args:
        given: ``hydra.launcher.ray.remote``; ``num_gpus`` null = one where there are any.
        has_gpus: whether the cluster has GPUs.
        accelerator: ``trainer.accelerator``; tasks that compute on the CPU take no GPU.

    Example:
        >>> remote_arguments({"num_cpus": 1, "num_gpus": None}, has_gpus=True)
        {'num_cpus': 1, 'num_gpus': 1}
    """
    told = {key: value for key, value in given.items() if value is not None}
    wants_one = has_gpus and accelerator != "cpu"
    return told if "num_gpus" in told or not wants_one else {**told, "num_gpus": 1}


class RayLauncher(SweepLauncher):
    """Runs each job as a task of Ray, which takes a free place on a GPU for it.

    A task whose process is killed is run again by Ray, ``max_retries`` times, and goes on from its
    checkpoint; the others are left alone.
    """

    isolates = True
    starts_in_turn = True

    def share(self, jobs: int) -> dict[str, Any]:
        cpus = self._settings("remote").get("num_cpus") or 1
        return {"threads": max(1, int(cpus))}

    def launch(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> Sequence[JobEnd | None]:
        given, address = self._settings("init"), os.environ.get("RAY_ADDRESS")
        place = str(given.get("address") or address)
        is_own = not joins(given, address)
        of_ray = dict(OF_OUR_OWN) if is_own or place.startswith(LOOPBACK) else {}
        if not is_own and _has_token():
            of_ray["RAY_AUTH_MODE"] = "token"
        os.environ.update({key: of_ray[key] for key in of_ray if key not in os.environ})
        _check_answer(place)
        import ray  # reads them when it is imported

        setup_globals()
        self._connect(ray, init_arguments(given, address))
        first, overrides = self._numbered(entries, environments)
        waiting, tasks = list(range(len(entries))), dict[int, Any]()
        while waiting:
            for at in compress(waiting, self.ready([entries[at] for at in waiting])):
                tasks[at] = self._start(ray, first + at, overrides[at])
            waiting = [at for at in waiting if at not in tasks]
            started = list(tasks.values())
            if not (waiting and started and _are_running(ray, started)):
                break  # what is left waits for a run that has not ended
        return [_end_of(ray, tasks[at]) if at in tasks else None for at in range(len(entries))]

    def _connect(self, ray: Any, arguments: Mapping[str, Any]) -> None:
        if ray.is_initialized():
            return
        try:
            ray.init(**arguments)
        except (ConnectionError, TypeError, ValueError, RuntimeError) as error:
            sentence = f"hydra.launcher.ray.init: {' '.join(str(error).split())}"
            allowed = "allowed: arguments of ray.init, with the address of a cluster that runs"
            raise ConfigError.of("hydra.launcher.ray.init", f"{sentence}; {allowed}") from error

    def _start(self, ray: Any, number: int, overrides: Sequence[str]) -> Any:
        from hydra_plugins.hydra_ray_launcher import _launcher_util

        launch_on_ray = private_name(_launcher_util, "launch_job_on_ray", KNOWN)
        launcher = self._launcher
        config = launcher.hydra_context.config_loader.load_sweep_config(
            launcher.config, list(overrides)
        )
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"job_id_for_{number}", number
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        remote = remote_arguments(self._settings("remote"), has_gpus, self._accelerator)
        try:
            return launch_on_ray(
                launcher.hydra_context,
                OmegaConf.create(remote),
                config,
                launcher.task_function,
                Singleton.get_state(),
            )
        except (TypeError, ValueError) as error:
            told = ", ".join(f"{key}={value}" for key, value in remote.items())
            sentence = f"hydra.launcher.ray.remote ({told}): {' '.join(str(error).split())}"
            allowed = "allowed: arguments of ray.remote, num_gpus=0.5 or so"
            raise ConfigError.of("hydra.launcher.ray.remote", f"{sentence}; {allowed}") from error

    def _settings(self, name: str) -> dict[str, Any]:
        node: Any = self._launcher.ray_cfg.get(name) or {}
        is_config = OmegaConf.is_config(node)
        given: Any = OmegaConf.to_container(node, resolve=True) if is_config else node
        return dict(given)


def _has_token() -> bool:
    """Return whether there is a token with which clusters that ask for one can be joined."""
    # Ray itself shows it only when it is told to.
    named = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or Path("~/.ray/auth_token").expanduser().is_file()


def _check_answer(address: str) -> None:
    """Refuse an address where nobody answers: Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        return  # auto, local, and ray://, which has time limits of its own
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        key = "hydra.launcher.ray.init.address"
        sentence = f"{key}={address}: nobody answers there ({error.strerror or error})"
        allowed = "allowed: HOST:PORT of a Ray cluster that runs, or null for one of its own"
        raise ConfigError.of(key, f"{sentence}; {allowed}") from error


def _are_running(ray: Any, tasks: Sequence[Any]) -> bool:
    """Wait a moment, and return whether one of some tasks has not ended."""
    return bool(ray.wait(list(tasks), num_returns=len(tasks), timeout=POLL_S)[1])


def _end_of(ray: Any, task: Any) -> JobEnd:
    try:
        returned: JobReturn = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return failed_job(error.cause or error)
    except ray.exceptions.RayError as error:
        told = " ".join(str(error).split())
        return CrashedJob(f"{type(error).__name__}: {told.partition('. ')[0]}")
    return returned
