"""Searching sweeper, ``hydra/sweeper=optuna``; imports Optuna once it is chosen."""

import importlib.util
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.errors import ConfigError
from coreai_opt.requirements import release_of
from coreai_opt.sweep.launchers.select import sweep_launcher
from coreai_opt.sweep.plan import Planner
from coreai_opt.sweep.sweeper import GridSweeps, SweepRun

if TYPE_CHECKING:
    from coreai_opt.sweep.search.run import SearchRun

TARGETS = (".OptunaSearch", ".AnyAppSearch")

OLDEST = 4  # of the major versions of Optuna


class SearchSweeps(GridSweeps):
    """Sweeper whose points Optuna chooses.

    The settings are read when the sweep's directory is known.
    """

    sweep_run: "SearchRun"

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take Hydra's objects, and check the settings of the search."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.sweep_run.configure(config)

    def _planned(self, planner: Planner, loader: ConfigLoader, config_name: str | None) -> SweepRun:
        search = planned_search(planner, loader, config_name)
        assert search is not None  # this sweeper is chosen
        return search

    def run(self) -> list[Any]:
        """Search; Hydra is told nothing of the jobs."""
        search, plan = self.sweep_run, self.sweep_run.plan
        if problems := search.folder.problems(plan):
            raise ConfigError(problems)
        plan.root.mkdir(parents=True, exist_ok=True)
        search.config = self._config
        search.run(sweep_launcher(self._launcher, plan.app.accelerator(plan.config)))
        return []


def planned_search(
    planner: Planner, loader: ConfigLoader, config_name: str | None
) -> "SearchRun | None":
    """Return the search of a command line, None where another sweeper is chosen.

    Args:
        planner: has read the command line.
        loader: finds the config files.
        config_name: the primary config's name.

    Raises:
        ConfigError: Optuna is not installed, or something is wrong whatever is chosen.
    """
    settings = planner.composer.hydra(planner.options)
    node = settings.sweeper
    if not str(node.get("_target_")).endswith(TARGETS):
        return None
    name = OmegaConf.select(settings, "runtime.choices", default={}).get("hydra/sweeper")
    option = f"hydra/sweeper={name or 'optuna'}"
    _need_optuna(option)
    from coreai_opt.sweep.search.run import SearchRun
    from coreai_opt.sweep.search.space import Space

    # A file may have the space; typed values come later and count.
    params = (node.get("params") or {}).items()
    given = {one.get_key_element() for one in planner.of_task}
    if filed := [f"{key}={value}" for key, value in params if key not in given]:
        typed = planner.command
        planner = Planner(loader, config_name, [*filed, *typed], planner.flags, planner.app)
        planner.command = typed
    space = Space(planner, loader)
    has_own = node.get("custom_search_space") is not None
    if not space.distributions and not has_own:
        allowed = "allowed: KNOB=interval(LOW,HIGH), range(LOW,HIGH,STEP) or choice(A,B)"
        raise ConfigError.of("hydra/sweeper", f"{option}: nothing varies; {allowed}")
    plan = space.outline()
    if plan.settings.zip:
        sentence = "sweep.zip: a search pairs no lists; allowed: sweep.zip=null"
        raise ConfigError.of("sweep.zip", sentence)
    if not has_own:  # its suggestions may be the missing values
        space.check()
    return SearchRun(plan, space, planner.fitting)


def _need_optuna(option: str) -> None:
    """Refuse a search without Optuna, and beside the old one of hydra-optuna-sweeper."""
    if importlib.util.find_spec("optuna") is None:
        need = "optuna"
    elif release_of(there := version("optuna")) >= (OLDEST,):
        return
    else:
        need = f"optuna>={OLDEST} ({there} is installed)"
    sentence = f"{option} needs the package {need}: pip install 'hydra-coreai-opt[optuna]'"
    raise ConfigError.of("hydra/sweeper", sentence)
