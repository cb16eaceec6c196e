"""Options that the plugin serves besides ``prune``: sweepers, launchers, records.

Their settings are those of ``conf/hydra``, under names that leave those of other plugins alone.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import yaml
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.locations import conf_dir
from coreai_opt.plugin.settings import defaults_of_sweep

PLUGIN = "hydra_plugins.hydra_coreai_opt"

# Option of hydra/launcher -> the extra that it comes with, the plugin, the class, what it begins
# with.
LAUNCHERS = {
    "coreai_joblib": (
        "joblib",
        "hydra_joblib_launcher",
        "joblib_launcher.JoblibLauncher",
        {"backend": None, "prefer": "processes", "require": None, "verbose": 0, "timeout": None,
         "temp_folder": None, "max_nbytes": None, "mmap_mode": "r"},
    ),
    "coreai_slurm": ("slurm", "hydra_submitit_launcher", "submitit_launcher.SlurmLauncher", {}),
    "coreai_ray": ("ray", "hydra_ray_launcher", "ray_launcher.RayLauncher", {}),
}  # fmt: skip

# Group -> what it has from us.
NAMES = {
    "hydra/sweeper": ("grid", "coreai_optuna", "coreai_optuna_pareto"),
    "hydra/sweeper/sampler": ("tpe", "random", "nsgaii", "cmaes"),
    "hydra/launcher": tuple(LAUNCHERS),
    "record": ("on",),
    "resumable": ("on",),
}

# Groups whose options go into Hydra's part of a config, where a typed root takes them too.
PACKAGES = {"record": "hydra.callbacks.record", "resumable": "hydra.callbacks.resumable"}

# What a search asks of a sweep; the others are of the grid.
OF_A_SEARCH = ("n_trials", "n_jobs", "study_name", "storage", "max_failure_rate")


def names_of(group: str) -> tuple[str, ...]:
    """Return the options that a group has from us."""
    return NAMES[group]


def served(group: str, name: str) -> tuple[DictConfig, str | None]:
    """Return an option, and its package where it is not that of its group."""
    makers: dict[str, Callable[[str], dict[str, Any]]] = {
        "hydra/sweeper": _sweeper,
        "hydra/sweeper/sampler": lambda name: _content("sweeper/sampler", name),
        "hydra/launcher": _launcher,
        "record": lambda _: {"_target_": "coreai_opt.plugin.RecordRun"},
        "resumable": lambda _: dict(RESUMABLE),
    }
    return OmegaConf.create(makers[group](name)), PACKAGES.get(group)


RESUMABLE = {
    "_target_": "coreai_opt.plugin.Resumable",
    "every_n_steps": None,
    "every_n_epochs": 1,
    "keep": 2,
}


def _sweeper(name: str) -> dict[str, Any]:
    if name == "grid":
        return {"_target_": f"{PLUGIN}.AnyAppGrid", **defaults_of_sweep()}
    return _search() if name == "coreai_optuna" else _pareto()


def _search() -> dict[str, Any]:
    own = _content("sweeper", "optuna")
    node = {
        "defaults": [{"sampler": "tpe"}, "_self_"],
        "_target_": f"{PLUGIN}.AnyAppSearch",
        "_recursive_": False,
        **defaults_of_sweep(),
        **{name: own[name] for name in OF_A_SEARCH},
        "objectives": None,
        "direction": "minimize",
    }
    del node["zip"], node["objective"]
    return node


def _pareto() -> dict[str, Any]:
    return {
        **_search(),
        "objectives": ["objective", "sparsity"],
        "direction": ["minimize", "maximize"],
    }


def _launcher(name: str) -> dict[str, Any]:
    extra, plugin, kind, begins = LAUNCHERS[name]
    if find_spec(f"hydra_plugins.{plugin}") is None:
        sentence = f"hydra/launcher={name} needs the package {plugin.replace('_', '-')}"
        raise ConfigCompositionException(f"{sentence}: pip install 'hydra-coreai-opt[{extra}]'")
    own = _content("launcher", extra)
    if name == "coreai_slurm":
        return own  # begins with submitit_slurm, which that plugin has registered
    own.pop("defaults")
    return {"_target_": f"hydra_plugins.{plugin}.{kind}", **begins, **own}


@cache
def _text(group: str, name: str) -> str:
    return (conf_dir() / "hydra" / group / f"{name}.yaml").read_text(encoding="utf-8")


def _content(group: str, name: str) -> dict[str, Any]:
    """Return an option of our own app."""
    content: dict[str, Any] = yaml.safe_load(_text(group, name))
    return content
