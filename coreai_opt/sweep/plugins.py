"""Hydra's plugins: the installed launchers and sweepers, under the names that our options have."""

from copy import deepcopy
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import open_dict

from coreai_opt.config.hydra_internals import forget_search_path
from coreai_opt.config.schemas.nodes import SCHEMAS

GROUP = "hydra/launcher"
PLUGINS = "hydra_plugins"

# For apps of others: ours has its config tree.
OF_OTHER_APPS = "CoreaiSearchPath"

# Options that a plugin brings under a name that ours have.
TAKEN = {"joblib": "joblib_launcher", "ray": "ray_launcher"}


def take_names() -> None:
    """Let our options be what ``hydra/launcher=joblib`` and ``hydra/sweeper=optuna`` mean.

    Hydra would hold our files against the plugins' nodes of the same names. Those of the launchers
    are what ours begin with, as ``schema/launcher/joblib`` and ``schema/launcher/ray``. Doing it
    twice does no harm.
    """
    Plugins.instance()  # looks for all that are installed
    forget_search_path(OF_OTHER_APPS)
    store = ConfigStore.instance()
    of_hydra: dict[str, Any] = store.repo["hydra"]
    for option, provider in TAKEN.items():
        node = of_hydra["launcher"].get(f"{option}.yaml")
        if isinstance(node, ConfigNode) and node.provider == provider:
            del of_hydra["launcher"][f"{option}.yaml"]
            theirs = _with_gpus(node.node) if option == "joblib" else node.node
            store.store(option, theirs, group=f"{SCHEMAS}/launcher", provider=provider)
    sweepers = of_hydra.get("sweeper", {})
    for group in (sweepers, sweepers.get("sampler", {})):
        for name, node in list(group.items()):
            if isinstance(node, ConfigNode) and node.provider == "optuna_sweeper":
                del group[name]


def is_installed(plugin: str) -> bool:
    """Return whether one of Hydra's plugins is there, without importing it."""
    try:
        return find_spec(f"{PLUGINS}.{plugin}") is not None
    except ModuleNotFoundError:
        return False


def _with_gpus(node: Any) -> Any:
    """Return joblib's node with what is ours: joblib itself knows nothing of GPUs."""
    node = deepcopy(node)
    with open_dict(node):
        node.gpus, node.jobs_per_gpu = None, 1
    return node
