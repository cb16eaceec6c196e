"""What apps of somebody else's get of the config tree: schedules, pruning specs and callbacks.

Our models, data and trainer are not among them: an app has its own.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.experiment.places import conf_dir

__all__ = ["is_served", "is_value", "options", "served"]

CALLBACKS = ("scheduled_pruning", "sparsity_monitor")

# In an app of ours it leaves the callback out; elsewhere the callback would be made without one.
NOT_SERVED = ("schedule/none",)

# What our own primary config selects.
WITH = {"callbacks/scheduled_pruning": {"/pruning": "magnitude"}}

# Our runs have one directory for all, which is the trainer's.
CSV_PATH = "${hydra:runtime.output_dir}/sparsity.csv"

BASE = "base_"

# What keeps a file of the app from being read. Hydra says so where the app needs it.
UNREADABLE = (OSError, ValueError, yaml.YAMLError, HydraException, OmegaConfBaseException)


@cache
def options(group: str) -> list[str]:
    """Return the options of a group, in alphabetical order."""
    names = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    chosen = CALLBACKS if group == "callbacks" else names
    return [name for name in names if name in chosen and f"{group}/{name}" not in NOT_SERVED]


def is_served(path: str) -> bool:
    """Return whether there is an option or a ``base_*`` node at ``group/name``."""
    group, _, name = path.partition("/")
    return name in options(group) or (name.startswith(BASE) and _node(group, name) is not None)


def served(path: str) -> tuple[Container, dict[str, str | None]]:
    """Return the config at ``group/name``, as it stands before its defaults are merged in.

    Args:
        path: one that ``is_served``.

    Returns:
        The config, and its header: ``{"package": ...}``.
    """
    group, _, name = path.partition("/")
    if name.startswith(BASE):
        return _schema(group, name), {"package": None}
    from coreai_opt.experiment.config_files import FileConfigSource

    found = FileConfigSource("hydra-coreai-opt", f"file://{conf_dir()}").load_config(path)
    config: Any = found.config
    if path in WITH:
        config.defaults = [WITH[path], *config.defaults]
    if path == "callbacks/sparsity_monitor":
        config.sparsity_monitor.csv_path = CSV_PATH
    return config, found.header


@cache
def is_value(group: str, search_path: tuple[tuple[str, str], ...]) -> bool:
    """Return whether an app has a value where we have a group.

    That is a key of one of its primary configs that is no group in their defaults lists.

    Args:
        group: its name.
        search_path: provider and path of what the app brings.
    """
    for config in (*_stored(), *_primary_configs(search_path)):
        chosen = OmegaConf.to_container(config).get("defaults") or []  # type: ignore[union-attr]
        groups = {str(key) for item in chosen if isinstance(item, dict) for key in item}
        named = {key.split()[-1].partition("@")[0].strip("/") for key in groups}
        if group in config and group not in named:
            return True
    return False


def _stored() -> Iterator[DictConfig]:
    for node in ConfigStore.instance().repo.values():
        if isinstance(node, ConfigNode) and isinstance(node.node, DictConfig):
            yield node.node


def _primary_configs(search_path: tuple[tuple[str, str], ...]) -> Iterator[DictConfig]:
    for provider, path in search_path:
        located = path if "://" in path else f"file://{path}"
        kind = SourcesRegistry.instance().resolve(located.partition("://")[0])
        source = kind(provider, located)
        if not source.available():
            continue
        for name in source.list("", ObjectType.CONFIG):
            try:
                config = source.load_config(name).config
            except UNREADABLE:
                continue
            if isinstance(config, DictConfig):
                yield config


def _node(group: str, name: str) -> Any:
    # Not imported before it is asked for: pydantic takes longer than all else.
    from coreai_opt.experiment.nodes import nodes

    named = name.removeprefix(BASE)
    return next((node for node in nodes() if (node.group, node.name) == (group, named)), None)


def _schema(group: str, name: str) -> DictConfig:
    from coreai_opt.experiment.nodes import schema_of

    node = _node(group, name)
    config: DictConfig = OmegaConf.structured(schema_of(node.model, node.target, node.partial))
    if group == "callbacks":
        # An app makes it by a plain instantiate, and our classes take plain values.
        with open_dict(config):
            config["_convert_"] = "all"
    return config
