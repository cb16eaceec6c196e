"""``hydra.main`` with errors that are sentences, sweeps that can be trusted, and a preview."""

import functools
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.cli.arguments import is_sweep, shows, wants_preview
from coreai_opt.cli.argv import program, replaced
from coreai_opt.cli.system_errors import system_error
from coreai_opt.config.composing import typed_flags
from coreai_opt.config.errors import ConfigError, RunFailedError, refuse
from coreai_opt.config.hydra_internals import VERSION_BASE, get_args_parser, trusted
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.config.target_policy import check_hydra_targets
from coreai_opt.distributed.ranks import remember_command
from coreai_opt.runs.signals import CTRL_C
from coreai_opt.sweep.jobs import job_of
from coreai_opt.sweep.launchers.select import check_installed
from coreai_opt.sweep.plugins import take_names

Task = Callable[[DictConfig], Any]

CONFIG_WRONG, RUN_FAILED = 1, 2

# Other ranks inherit HYDRA_FULL_ERROR, and would take it for the user's own.
SENTENCES = "COREAI_OPT_SENTENCES"


def run_command(task: Task) -> None:
    """Do what the command line says; see ``coreai_opt.app.hydra_app``.

    Args:
        task: takes the composed config, returns the objective.
    """
    arguments = _arguments()
    arguments.program = program()
    typed_flags.set(arguments)
    remember_command(replaced)
    # As with python -m: the user's own modules lie where the command is typed.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    register_nodes()
    take_names()
    decorate = hydra.main(str(conf_dir()), "config", **VERSION_BASE)
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and SENTENCES not in os.environ:
        _run(decorate(job_of(task)), arguments)
    else:
        _run_with_sentences(decorate(_leaving_a_single_run(job_of(task))), arguments)


def _arguments() -> Namespace:
    try:
        return get_args_parser().parse_args()
    except SystemExit as error:  # argparse has said what is wrong, and means 2 by it
        sys.exit(CONFIG_WRONG if error.code else 0)


def _run(hydra_main: Callable[[], None], arguments: Namespace) -> None:
    """Preview, sweep or run, as the command line says."""
    check_installed(arguments.overrides)
    if wants_preview(arguments):
        from coreai_opt.sweep.preview.show import preview_command

        preview_command(arguments, is_sweep(arguments), arguments.png)
        return
    if is_sweep(arguments) and not shows(arguments):
        from coreai_opt.cli.sweep_command import announced, planned_sweep

        sweep = planned_sweep(arguments)
        if sweep is not None:  # else it is another sweeper's, which Hydra makes
            with announced(sweep), trusted():
                check_hydra_targets(Namespace(**vars(arguments) | {"overrides": sweep.fitting}))
                hydra_main()
            if sweep.has_failed:
                sys.exit(RUN_FAILED)
            return
    check_hydra_targets(arguments)
    with trusted():
        hydra_main()


def _leaving_a_single_run(task: Task) -> Task:
    """Let the errors of a single run leave as SystemExit: Hydra prints a heading above all others.

    In a sweep they stay exceptions, for the other runs to go on.
    """

    @functools.wraps(task)
    def run_task(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except (ConfigError, RunFailedError) as error:
            if HydraConfig.get().mode != RunMode.RUN:
                raise
            _exit_with(error)

    return run_task


def _run_with_sentences(hydra_main: Callable[[], None], arguments: Namespace) -> None:
    # With this set Hydra hands its errors on instead of printing them.
    os.environ |= {"HYDRA_FULL_ERROR": "1", SENTENCES: "1"}
    try:
        _run(hydra_main, arguments)
    except KeyboardInterrupt:
        print("interrupted by Ctrl-C", file=sys.stderr)
        sys.exit(CTRL_C)
    except (ConfigError, RunFailedError) as error:
        _exit_with(error)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        from coreai_opt.config.explain_errors import diagnose

        _exit_with(ConfigError(diagnose(error, arguments.overrides)))
    except OSError as error:
        _exit_with(system_error(error, _directories()))
    finally:
        for name in ("HYDRA_FULL_ERROR", SENTENCES):
            os.environ.pop(name, None)


def _directories() -> list[str]:
    return [HydraConfig.get().run.dir] if HydraConfig.initialized() else []


def _exit_with(error: ConfigError | RunFailedError) -> NoReturn:
    if isinstance(error, ConfigError):
        refuse(error.problems)  # exits
    print(f"error: {error}", file=sys.stderr)
    sys.exit(RUN_FAILED)
