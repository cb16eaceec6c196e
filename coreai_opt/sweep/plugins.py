"""Hydra's plugins: the launchers of our extras are imported only once one of them is chosen.

Hydra imports all plugins that are installed, and makes their configs, before it composes anything.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pkgutil import ModuleInfo, walk_packages
from types import SimpleNamespace
from typing import Any

from hydra.core import plugins as hydras
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import open_dict

from coreai_opt.config.schemas.lazy_nodes import LazyNode, store_lazily

__all__ = ["find_plugins", "is_installed", "take_names"]

GROUP = "hydra/launcher"
PLUGINS = "hydra_plugins"

# For apps of others: ours has its config tree.
OURS = "hydra_coreai_opt"

# Plugins that bring nothing but these launchers.
LAUNCHERS = {
    "hydra_joblib_launcher": ("joblib",),
    "hydra_ray_launcher": ("ray", "ray_aws"),
    "hydra_submitit_launcher": ("submitit_local", "submitit_slurm"),
}

# Options that a plugin brings under a name that ours have.
TAKEN = {"joblib": "joblib_launcher", "ray": "ray_launcher"}


def find_plugins() -> None:
    """Let Hydra look for its plugins, without the launchers; doing it twice does no harm."""
    if Plugins in Singleton._instances:
        return  # has looked for all of them
    seen = vars(hydras)
    stock, seen["pkgutil"] = seen["pkgutil"], SimpleNamespace(walk_packages=_without_launchers)
    try:
        Plugins.instance()
    finally:
        seen["pkgutil"] = stock
    for plugin, options in LAUNCHERS.items():
        if is_installed(plugin):
            for option in options:
                name = f"base_{option}" if option in TAKEN else option
                store_lazily(GROUP, name, partial(_node_of, plugin, option), plugin)


def take_names() -> None:
    """Let our options be what ``hydra/launcher=joblib`` and ``hydra/sweeper=optuna`` mean.

    Hydra would hold our files against the plugins' nodes of the same names. Those of the launchers
    are what ours begin with, as ``base_joblib`` and ``base_ray``.
    """
    find_plugins()
    for option in TAKEN:
        if (node := _taken(option)) is not None:
            ConfigStore.instance().store(group=GROUP, name=f"base_{option}", node=node)
    sweepers = ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {})
    for group in (sweepers, sweepers.get("sampler", {})):
        theirs = [
            name
            for name, node in group.items()
            if isinstance(node, ConfigNode) and node.provider == "optuna_sweeper"
        ]
        for name in theirs:
            del group[name]


def is_installed(plugin: str) -> bool:
    """Return whether one of Hydra's plugins is there, without importing it."""
    try:
        return find_spec(f"{PLUGINS}.{plugin}") is not None
    except ModuleNotFoundError:
        return False


def _without_launchers(*args: Any, **kwargs: Any) -> Iterator[ModuleInfo]:
    for module in walk_packages(*args, **kwargs):
        if not set(module.name.split(".")[:2]) & {*LAUNCHERS, OURS}:
            yield module


def _node_of(plugin: str, option: str) -> Any:
    """Import a plugin, and return the config of one of its options."""
    for found in Plugins._scan_all_plugins([import_module(f"{PLUGINS}.{plugin}")])[0]:
        Plugins.instance().register(found)
    if option in TAKEN:
        node = _taken(option)
    else:
        known = _options().get(f"{option}.yaml")
        node = None if known is None or isinstance(known, LazyNode) else known.node
    if node is None:
        raise HydraException(f"{GROUP}={option}: {plugin} cannot be imported, or has no such node")
    return node


def _taken(option: str) -> Any:
    """Take the node of a plugin out of the options of its name; None where it is not there."""
    node = _options().get(f"{option}.yaml")
    if not isinstance(node, ConfigNode) or node.provider != TAKEN[option]:
        return None
    del _options()[f"{option}.yaml"]
    return _with_gpus(node.node) if option == "joblib" else node.node


def _options() -> dict[str, Any]:
    options: dict[str, Any] = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    return options


def _with_gpus(node: Any) -> Any:
    """Return joblib's node with what is ours: joblib itself knows nothing of GPUs."""
    node = deepcopy(node)
    with open_dict(node):
        node.gpus, node.jobs_per_gpu = None, 1
    return node
