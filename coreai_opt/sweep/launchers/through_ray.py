"""Ray: tasks of a cluster, or of this machine."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from coreai_opt.experiment.errors import ConfigError
from coreai_opt.experiment.orders import Orders
from coreai_opt.sweep.folder import Entry
from coreai_opt.sweep.launchers.launching import EntryLauncher, JobEnd, LostJob

__all__ = ["RayLauncher", "init_arguments", "remote_arguments"]

# What only makes sense for a cluster that this command starts.
OF_A_NEW_CLUSTER = ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard")

# Of this machine alone, and of nobody else's business.
LOOPBACK = "127.0.0.1"


def init_arguments(given: Mapping[str, Any], address: str | None) -> dict[str, Any]:
    """Return what ``ray.init`` is called with.

    Args:
        given: ``hydra.launcher.ray.init``; null is left out.
        address: ``RAY_ADDRESS`` of the environment, None where it is not set.

    Example:
        >>> init_arguments({"address": "10.0.0.1:6379", "num_cpus": 4}, None)
        {'address': '10.0.0.1:6379'}
        >>> init_arguments({"address": None, "num_cpus": 4}, None)
        {'num_cpus': 4, '_node_ip_address': '127.0.0.1'}
    """
    told = {key: value for key, value in given.items() if value is not None}
    if told.get("address", address) not in (None, "local"):
        return {key: value for key, value in told.items() if key not in OF_A_NEW_CLUSTER}
    return {**told, "_node_ip_address": told.get("_node_ip_address", LOOPBACK)}


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


class RayLauncher(EntryLauncher):
    """Runs each job as a task of Ray, which takes a free place on a GPU for it.

    A task whose process is killed is run again by Ray, ``max_retries`` times, and goes on from its
    checkpoint; the others are left alone.
    """

    isolates = True

    def orders(self, jobs: int) -> dict[str, Any]:
        cpus = self._settings("remote").get("num_cpus") or 1
        return {"threads": max(1, int(cpus))}

    def launch(self, entries: Sequence[Entry], orders: Sequence[Orders]) -> Sequence[JobEnd]:
        import ray

        setup_globals()
        self._connect(ray)
        first, overrides = self._numbered(entries, orders)
        tasks = [self._start(ray, first + at, texts) for at, texts in enumerate(overrides)]
        return [_end_of(ray, task) for task in tasks]

    def _connect(self, ray: Any) -> None:
        if ray.is_initialized():
            return
        # A cluster that nobody asked to report to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Without this Ray hides all GPUs from tasks that ask for none, in a way of its own.
        arguments = init_arguments(self._settings("init"), os.environ.get("RAY_ADDRESS"))
        try:
            ray.init(**arguments)
        except (ConnectionError, TypeError, ValueError, RuntimeError) as error:
            sentence = f"hydra.launcher.ray.init: {' '.join(str(error).split())}"
            allowed = "allowed: arguments of ray.init, with the address of a cluster that runs"
            raise ConfigError.of("hydra.launcher.ray.init", f"{sentence}; {allowed}") from error

    def _start(self, ray: Any, number: int, overrides: Sequence[str]) -> Any:
        from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray

        launcher = self._launcher
        config = launcher.hydra_context.config_loader.load_sweep_config(
            launcher.config, list(overrides)
        )
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"job_id_for_{number}", number
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        remote = remote_arguments(self._settings("remote"), has_gpus, self._accelerator)
        return launch_job_on_ray(
            launcher.hydra_context,
            OmegaConf.create(remote),
            config,
            launcher.task_function,
            Singleton.get_state(),
        )

    def _settings(self, name: str) -> dict[str, Any]:
        node = self._launcher.ray_cfg.get(name) or {}
        given: Any = OmegaConf.to_container(node, resolve=True) if _is_config(node) else dict(node)
        return dict(given)


def _is_config(node: Any) -> bool:
    return isinstance(node, DictConfig)


def _end_of(ray: Any, task: Any) -> JobEnd:
    try:
        returned: JobReturn = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        failed = JobReturn()
        failed.status, failed.return_value = JobStatus.FAILED, error.cause or error
        return failed
    except ray.exceptions.RayError as error:
        told = " ".join(str(error).split())
        return LostJob(f"{type(error).__name__}: {told.partition('. ')[0]}")
    return returned
