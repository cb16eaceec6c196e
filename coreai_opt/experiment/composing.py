"""Hydra's composing as the command line sets it up, without running anything."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra

from coreai_opt.experiment.places import conf_dir

__all__ = ["command_context"]


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
    version.setbase("1.3")
    try:
        Hydra.create_main_hydra2(task_name="app", config_search_path=search)
        yield arguments.config_name or "config"
    finally:
        GlobalHydra.instance().hydra = running
