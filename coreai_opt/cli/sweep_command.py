"""A command line as a sweep, before Hydra composes anything."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra

from coreai_opt.cli.argv import swapped
from coreai_opt.cli.system_errors import system_error
from coreai_opt.config.composing import command_context, flags_of
from coreai_opt.sweep.plan import Planner
from coreai_opt.sweep.search.sweeper import planned_search
from coreai_opt.sweep.sweeper import SweepRun, current_sweep


@contextmanager
def announced(sweep: SweepRun) -> Iterator[None]:
    """Let the sweeper that Hydra's multirun makes meanwhile be this sweep's."""
    token = current_sweep.set(sweep)
    try:
        with swapped(sweep.plan.command, sweep.fitting):
            yield
    except OSError as error:
        raise system_error(error, [sweep.plan.root]) from error
    finally:
        current_sweep.reset(token)


def planned_sweep(arguments: Namespace) -> SweepRun | None:
    """Return the sweep of a command line, None where it is another sweeper's.

    Args:
        arguments: as Hydra's own parser returns them.

    Raises:
        ConfigError: everything that is wrong with one of its points.
    """
    with command_context(arguments) as config_name:
        loader = GlobalHydra.instance().config_loader()
        planner = Planner(loader, config_name, arguments.overrides, flags_of(arguments))
        return plan_of(planner, loader, config_name)


def plan_of(planner: Planner, loader: ConfigLoader, config_name: str) -> SweepRun | None:
    """Return the sweep or search of a command line.

    Args:
        planner: has read the command line.
        loader: finds the config files.
        config_name: the primary config's name.

    Returns:
        None where another sweeper is chosen.

    Raises:
        ConfigError: everything that is wrong with one of its points.
    """
    if planner.is_grid:
        return SweepRun(planner.plan(), planner.fitting)
    return planned_search(planner, loader, config_name)
