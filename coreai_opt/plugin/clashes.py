"""Clashes: what an app has of its own where an option of ours would go, and the sentence for it.

Nothing of an app's is ever overwritten: another group name is there for an app with a ``prune`` of
its own, and one for an app whose root takes no keys of ours.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.plugin.options import GROUPS

# What keeps a file of the app from being read. Hydra says so where the app needs it.
UNREADABLE = (OSError, ValueError, yaml.YAMLError, HydraException, OmegaConfBaseException)

# A package in a defaults list that puts what is named at the root.
AT_THE_ROOT = ("", "_here_", "_global_")

# Hydra's own, for an app without a primary config.
HYDRAS = "_dummy_empty_config_.yaml"

NAMED = re.compile(r"(?:^| )(?:--config-name|-cn)[ =](\S+)")


@dataclass(frozen=True)
class App:
    """An app, as far as Hydra knows it before it composes.

    Attributes:
        search_path: provider and path of what the app brings.
        words: its command line.
    """

    search_path: tuple[tuple[str, str], ...]
    words: tuple[str, ...]


@cache
def has_its_own(group: str, app: App) -> bool:
    """Return whether an app has a group of that name, or a value where its knobs would go.

    A value is a key of one of its primary configs that is no group in their defaults lists.
    """
    if ConfigStore.instance().get_type(group) == ObjectType.GROUP:
        return True
    if any(source.is_group(group) for source in sources_of(app)):
        return True
    for config in _primary_configs(app).values():
        # A key without a value, ???, is one too.
        if group in list(config.keys()) and group not in _groups(config):
            return True
    return False


def refuse(group: str, name: str, app: App) -> None:
    """Raise where an option cannot be what the user means, in a sentence that names what can.

    Args:
        group: of the option.
        name: the option.
        app: that it would go into.

    Raises:
        ConfigCompositionException: which Hydra prints without a traceback.
    """
    packaged = next((word for word in app.words if word.startswith(f"+{group}@")), None)
    if packaged is not None:
        raise ConfigCompositionException(
            f"{packaged}: an option of ours says itself where it goes, and prunes nothing "
            f"elsewhere; allowed: +{group}={name}"
        )
    if group == "prune_typed":
        return
    if (kind := _type_of_root(app)) is not None:
        raise ConfigCompositionException(
            f"+{group}={name}: the config of this app is of the class {kind}, which has no key "
            f"{group!r}; allowed: +prune_typed={name}, with knobs as hydra.callbacks.prune.power=2"
        )
    if has_its_own(group, app):
        raise ConfigCompositionException(
            f"+{group}={name}: this app has a {group!r} of its own; allowed: "
            f"+coreai_prune={name}, with knobs as coreai_prune.power=2"
        )


def sources_of(app: App) -> Iterator[ConfigSource]:
    """Yield what an app's configs are read from, in the order that Hydra looks in."""
    sources: Any = Plugins.instance().discover(ConfigSource)
    kinds: dict[str, type[ConfigSource]] = {kind.scheme(): kind for kind in sources}
    for provider, path in app.search_path:
        located = path if "://" in path else f"file://{path}"
        kind = kinds.get(located.partition("://")[0])
        source = None if kind is None else kind(provider, located)
        if source is not None and source.available():
            yield source


def _primary_configs(app: App) -> dict[str, DictConfig]:
    """Return what an app may begin with, by name; a file goes over a node of the same name."""
    found = {
        name.removesuffix(".yaml"): node.node
        for name, node in ConfigStore.instance().repo.items()
        if isinstance(node, ConfigNode) and isinstance(node.node, DictConfig) and name != HYDRAS
    }
    for source in sources_of(app):
        for name in source.list("", ObjectType.CONFIG):
            try:
                config = source.load_config(name).config
            except UNREADABLE:
                continue
            if isinstance(config, DictConfig):
                found[name] = config
    return found


def defaults_of(config: DictConfig) -> list[Any]:
    """Return the defaults list of a config as it stands."""
    plain: Any = OmegaConf.to_container(config)
    return plain.get("defaults") or []


def _groups(config: DictConfig) -> set[str]:
    """Return the groups that a config chooses from."""
    keys = {str(key) for item in defaults_of(config) if isinstance(item, dict) for key in item}
    return {key.split()[-1].partition("@")[0].strip("/") for key in keys}


def _type_of_root(app: App) -> str | None:
    """Return the name of the class that an app's config is of, None where it takes any key.

    Where the command does not name the primary config, it is that of all which may be.
    """
    configs = _primary_configs(app)
    named = NAMED.search(" ".join(app.words))
    inner = {name for config in configs.values() for name in _bases(config)}
    chosen = [named[1]] if named else [name for name in configs if name not in inner]
    kinds = [_class_of(name, configs) for name in chosen if name in configs]
    return None if None in kinds else next(iter(kinds), None)


def _bases(config: DictConfig) -> list[str]:
    """Return the configs whose keys a config has at the root."""
    names = [item for item in defaults_of(config) if isinstance(item, str)]
    parted = [name.partition("@") for name in names]
    return [name.strip("/") for name, _, package in parted if package in AT_THE_ROOT]


def _class_of(name: str, configs: dict[str, DictConfig]) -> str | None:
    config = configs[name]
    kind = OmegaConf.get_type(config)
    if kind is not dict:
        return None if kind is None else kind.__name__
    inner = (_class_of(base, configs) for base in _bases(config) if base in configs)
    return next((found for found in inner if found is not None), None)


def warn_of_swept_group(words: Sequence[str]) -> None:
    """Say what a sweep over the group itself lacks: Hydra calls no callback of ours in its jobs.

    Args:
        words: the command line.
    """
    for word in words:
        group, _, value = word.removeprefix("+").partition("=")
        if not word.startswith("+") or group not in GROUPS or "," not in value or value[0] == "[":
            continue
        first, key = re.split(r"\W+", value.removeprefix("choice("))[0], GROUPS[group]
        better = "" if key is None else f"; better: +{group}={first} {key}.schedule={value}"
        sentence = f"with {word} a job that trains without a Trainer goes unnoticed"
        print(f"warning: {sentence}{better}", file=sys.stderr)
