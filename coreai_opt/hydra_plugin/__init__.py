"""The plugin for Hydra apps of your own, installed as ``hydra_plugins.hydra_coreai_opt``.

Every Hydra app on the machine imports this file when it starts: nothing else is imported here, and
config files are looked for when one of our groups is asked for.
"""

import sys
from typing import TYPE_CHECKING, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

if TYPE_CHECKING:
    from hydra.core.config_search_path import SearchPathElement

__all__ = ["CoreaiConfigSource", "CoreaiSearchPath"]

SCHEME, PROVIDER = "coreai", "hydra-coreai-opt"

GROUPS = ("callbacks", "pruning", "schedule")


class _OursLast(list["SearchPathElement"]):
    """A search path in which what is added later comes before ours, but for Hydra's own last one.

    An app adds to it with ``hydra.searchpath``, after all plugins have.
    """

    def append(self, element: "SearchPathElement") -> None:
        ours = next((at for at, one in enumerate(self) if one.provider == PROVIDER), len(self))
        self.insert(len(self) if element.provider == "schema" else ours, element)


class CoreaiSearchPath(SearchPathPlugin):
    """Puts our schedules, pruning specs and callbacks behind all that an app has of its own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider=PROVIDER, path=f"{SCHEME}://conf")
        if isinstance(getattr(search_path, "config_search_path", None), list):
            search_path.config_search_path = _OursLast(search_path.get_path())  # type: ignore[attr-defined]
        CoreaiConfigSource.searched = [
            (str(one.provider), str(one.path))
            for one in search_path.get_path()
            if one.provider not in ("hydra", PROVIDER)
        ]


class CoreaiConfigSource(ConfigSource):
    """Serves the groups of the plugin, and makes the ``base_*`` nodes that they begin with.

    Where a group is, ``schedule=linear`` chooses an option, and where none is, it sets a value: in
    an app that has a value of that name, none of ours may be. ``+schedule=poly`` could not set the
    value there, and means the group.
    """

    searched: ClassVar["list[tuple[str, str]]"] = []

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        # Pickled with this object, for the workers of a sweep, which compose anew.
        self._of_the_app = tuple(self.searched)
        words = (word.partition("=")[0].partition("@")[0] for word in sys.argv[1:])
        self._added = {word[1:] for word in words if word.startswith("+")}

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        group = config_path.strip("/")
        if group not in GROUPS:
            return group == ""
        if group in self._added:
            return True
        from coreai_opt.experiment.served_configs import is_value

        return not is_value(group, self._of_the_app)

    def is_config(self, config_path: str) -> bool:
        path = config_path.strip("/").removesuffix(".yaml")
        if path.partition("/")[0] not in GROUPS or "/" not in path:
            return False
        # The app's own, in Hydra's store, is looked for only after all sources.
        if ConfigStore.instance().get_type(f"{path}.yaml") == ObjectType.CONFIG:
            return False
        from coreai_opt.experiment.served_configs import is_served

        return is_served(path)

    def load_config(self, config_path: str) -> ConfigResult:
        from coreai_opt.experiment.served_configs import served

        config, header = served(config_path.strip("/").removesuffix(".yaml"))
        return ConfigResult(
            provider=self.provider, path=self.full_path(), config=config, header=header
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> "list[str]":
        group = config_path.strip("/")
        if group == "":
            is_any = results_filter != ObjectType.CONFIG
            return [name for name in GROUPS if is_any and self.is_group(name)]
        if group not in GROUPS or results_filter == ObjectType.GROUP:
            return []
        from coreai_opt.experiment.served_configs import options

        return options(group)
