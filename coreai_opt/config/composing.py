"""Composing: Hydra set up as the command line sets it up, and the config that one job sees."""

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path

from hydra import version
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from coreai_opt.config.hydra_internals import (
    VERSION_BASE,
    create_config_search_path,
    create_hydra,
    writable,
)
from coreai_opt.config.locations import conf_dir

PROGRAM = "python train.py"
NO_FLAGS = Namespace(config_path=None, config_name=None, config_dir=None, program=PROGRAM)

typed_flags: ContextVar[Namespace] = ContextVar("typed_flags", default=NO_FLAGS)
"""How the command is called, and what finds its configs, as Hydra's own parser returns it."""


def flags_of(arguments: Namespace) -> list[str]:
    """Return what finds the config, as it was typed besides the overrides."""
    names = ("config_path", "config_name", "config_dir")
    given = {name: getattr(arguments, name, None) for name in names}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value]


@contextmanager
def command_context(arguments: Namespace) -> Iterator[str]:
    """Initialize Hydra for composing; what it was in the middle of is put back afterwards.

    Options are found as Hydra's own main function finds them: in ``--config-dir`` before ours.

    Args:
        arguments: as Hydra's own parser returns them.

    Yields:
        The primary config's name.
    """
    running, own = GlobalHydra.instance().hydra, arguments.config_dir
    path = getattr(arguments, "config_path", None)
    search = create_config_search_path(str(Path(path).absolute() if path else conf_dir()))
    if own:
        folder = f"file://{Path(own).absolute()}"
        search.prepend("command-line", folder, anchor=SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    for base in VERSION_BASE.values():
        version.setbase(base)
    try:
        create_hydra(task_name="app", config_search_path=search)
        yield arguments.config_name or "config"
    finally:
        GlobalHydra.instance().hydra = running


def first_point(overrides: list[str]) -> list[str]:
    """Return the overrides with the first value of each list, as one run takes them.

    What a search chooses is left out; what does not parse stays as it was typed.

    Example:
        >>> first_point(["power=1,2", "optimizer.lr=interval(0.1, 1)", "seed=3"])
        ['power=1', 'seed=3']
    """
    firsts: list[str] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
            if not override.is_sweep_override():
                firsts.append(text)
            elif override.is_discrete_sweep():
                values = islice(override.sweep_string_iterator(), 1)
                firsts += [f"{override.get_key_element()}={value}" for value in values]
        except HydraException:
            firsts.append(text)
    return firsts


def task_config(config: DictConfig, run_dir: str) -> DictConfig:
    """Return the config as the job will see it, with the directory that it will have."""
    config = config.copy()
    with writable(config):
        config.hydra.runtime.output_dir = os.path.abspath(run_dir)  # noqa: PTH100
        HydraConfig.instance().set_config(config)
        task = config.copy()
        del task["hydra"]
    return task
