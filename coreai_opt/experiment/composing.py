"""Hydra's composing as the command line sets it up, without running anything."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from coreai_opt.experiment.places import conf_dir

__all__ = ["command_context"]


@contextmanager
def command_context(arguments: Namespace) -> Iterator[tuple[str, list[str]]]:
    """Initialize Hydra for composing; what it was in the middle of is put back afterwards.

    Args:
        arguments: as Hydra's own parser returns them.

    Yields:
        The primary config's name, and the overrides that stand for ``--config-dir``.
    """
    running, own = GlobalHydra.instance().hydra, arguments.config_dir
    added = [f"hydra.searchpath=[{_quoted(f'file://{Path(own).absolute()}')}]"] if own else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield arguments.config_name or "config", added
    finally:
        GlobalHydra.instance().hydra = running


def _quoted(text: str) -> str:
    """Return a text as a quoted value of Hydra's override grammar."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
