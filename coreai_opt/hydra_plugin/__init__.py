"""The plugin for any Hydra app, installed as ``hydra_plugins.hydra_coreai_opt``.

Every Hydra app on the machine imports this file when it starts: nothing else is imported here, and
config files are looked at when one of our groups is asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any, SupportsIndex

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from hydra.core.config_search_path import SearchPathElement
    from omegaconf import DictConfig

    from coreai_opt.plugin.clashes import App

__all__ = [
    "AnyAppGrid",
    "AnyAppSearch",
    "CoreaiConfigSource",
    "CoreaiSearchPath",
    "GridSweeper",
    "OptunaSearch",
]

SCHEME, PROVIDER = "coreai", "hydra-coreai-opt"

GROUPS = ("prune", "coreai_prune", "prune_typed")

# Groups with options of ours beside those of Hydra and of other plugins.
SHARED = ("hydra/sweeper", "hydra/sweeper/sampler", "hydra/launcher", "record", "resumable")


class _Path(str):
    """The path of our source, with what is known of the app.

    Hydra makes a source of it, and in the workers of a sweep another one of a copy.

    Attributes:
        searched: provider and path of what the app brings.
        words: its command line.
    """

    searched: "list[tuple[str, str]]"
    words: "list[str]"


class _OursLast(list["SearchPathElement"]):
    """A search path in which what is added later comes before ours, but for Hydra's own last one.

    An app adds to it with ``hydra.searchpath`` and ``--config-dir``, after all plugins have.
    """

    def append(self, element: "SearchPathElement") -> None:
        if element.provider == "schema":
            super().append(element)
        else:
            self.insert(len(self), element)

    def insert(self, index: SupportsIndex, element: "SearchPathElement") -> None:
        # In a copy that is being made ours is not there yet.
        ours = next((at for at, one in enumerate(self) if one.provider == PROVIDER), None)
        if ours is not None:
            path: Any = self[ours].path
            path.searched.append((element.provider, element.path))
        super().insert(int(index) if ours is None else min(int(index), ours), element)


class CoreaiSearchPath(SearchPathPlugin):
    """Puts our options behind all that an app has of its own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        path = _Path(f"{SCHEME}://conf")
        path.words = sys.argv[1:]  # the app's own, where no command of ours has read them
        path.searched = [
            (str(one.provider), str(one.path))
            for one in search_path.get_path()
            if one.provider != "hydra"
        ]
        search_path.append(provider=PROVIDER, path=path)
        if isinstance(getattr(search_path, "config_search_path", None), list):
            search_path.config_search_path = _OursLast(search_path.get_path())  # type: ignore[attr-defined]
        typed = (word.removeprefix("+").partition("=")[0] for word in path.words if "," in word)
        if any(key in GROUPS for key in typed):
            from coreai_opt.plugin.clashes import warn_of_swept_group

            warn_of_swept_group(path.words)


class CoreaiConfigSource(ConfigSource):
    """Serves ``prune`` and its two other names.

    Where a group is, ``prune=linear`` chooses an option, and where none is, it sets a value: in an
    app that has a ``prune`` of its own, ours is not there. ``+prune=poly``, where the app has no
    such option, is refused there with the name of the other group.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._searched = getattr(path, "searched", [])
        self._words = getattr(path, "words", [])

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        group = config_path.strip("/")
        if group in SHARED:
            return "/" in group or not self._is_taken(group)
        if group not in GROUPS:
            return group == ""
        return group != "prune" or self._is_typed(group) or not self._is_taken(group)

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.strip("/").removesuffix(".yaml").rpartition("/")
        if group not in (*GROUPS, *SHARED) or not name:
            return False
        # The app's own, in Hydra's store, is looked for only after all sources.
        if ConfigStore.instance().get_type(f"{group}/{name}.yaml") == ObjectType.CONFIG:
            return False
        if group in SHARED:
            from coreai_opt.plugin.sweeps.served import names_of

            return name in names_of(group) and self.is_group(group)
        from coreai_opt.plugin.options import SCHEDULES

        return name in SCHEDULES and self.is_group(group)

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.strip("/").removesuffix(".yaml").rpartition("/")
        if group in SHARED:
            from coreai_opt.plugin.sweeps.served import served

            return self._result(config_path, *served(group, name))
        from coreai_opt.plugin.clashes import refuse
        from coreai_opt.plugin.options import option

        refuse(group, name, self._app)
        return self._result(config_path, *option(group, name))

    def _result(self, path: str, config: "DictConfig", package: str | None) -> ConfigResult:
        header: dict[str, str | None] = {"package": package}
        return ConfigResult(self.provider, self.full_path(), config, header)

    def list(self, config_path: str, results_filter: ObjectType | None) -> "list[str]":
        group = config_path.strip("/")
        if group == "":
            if results_filter == ObjectType.CONFIG:
                return []
            return ["coreai_prune" if self._is_taken("prune") else "prune"]
        if group in SHARED and results_filter != ObjectType.GROUP:
            from coreai_opt.plugin.sweeps.served import names_of

            return sorted(names_of(group)) if self.is_group(group) else []
        if group not in GROUPS or results_filter == ObjectType.GROUP:
            return []
        from coreai_opt.plugin.options import SCHEDULES

        return sorted(SCHEDULES) if self.is_group(group) else []

    @property
    def _app(self) -> "App":
        from coreai_opt.plugin.clashes import App

        return App(tuple(self._searched), tuple(self._words))

    def _is_typed(self, group: str) -> bool:
        return any(word.partition("=")[0].partition("@")[0] == f"+{group}" for word in self._words)

    def _is_taken(self, group: str) -> bool:
        from coreai_opt.plugin.clashes import has_its_own

        return has_its_own(group, self._app)


class _Deferred:
    """Hands over to what is imported when a sweep begins.

    Its settings are read from the config, where they can be named when they are wrong.
    """

    made_by = ""

    def __init__(self, **settings: Any) -> None:
        self._made: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: "DictConfig") -> None:
        module, _, name = self.made_by.partition(":")
        self._made = getattr(importlib.import_module(module), name)()
        self._made.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: "list[str]") -> Any:
        return self._made.sweep(arguments)


class GridSweeper(_Deferred, Sweeper):
    """``hydra/sweeper=grid`` of our own app."""

    made_by = "coreai_opt.sweep.sweeper:GridSweeps"


class OptunaSearch(_Deferred, Sweeper):
    """``hydra/sweeper=optuna`` of our own app."""

    made_by = "coreai_opt.sweep.search.sweeper:SearchSweeps"


class AnyAppGrid(_Deferred, Sweeper):
    """``hydra/sweeper=grid`` of any other app."""

    made_by = "coreai_opt.plugin.sweeps.sweepers:AnyGrid"


class AnyAppSearch(_Deferred, Sweeper):
    """``hydra/sweeper=coreai_optuna`` of any other app."""

    made_by = "coreai_opt.plugin.sweeps.search:AnySearch"
