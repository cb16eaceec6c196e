"""``hydra.main`` with errors that are sentences, and a ``--help`` for people."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.experiment.errors import ConfigError, Problem, RunFailedError
from coreai_opt.experiment.help import help_text
from coreai_opt.experiment.hooks import print_problems
from coreai_opt.experiment.nodes import register_nodes
from coreai_opt.experiment.places import conf_dir

__all__ = ["hydra_app"]

Task = Callable[[DictConfig], Any]

CONFIG_WRONG, RUN_FAILED = 1, 2


def hydra_app(task: Task) -> Callable[[], None]:
    """Make a command of a task: ``hydra.main`` over the project's config tree.

    Hydra's and OmegaConf's errors become one sentence each and exit code 1; a run that fails exits
    with 2. ``HYDRA_FULL_ERROR=1`` in the environment keeps the stack traces.

    Args:
        task: takes the composed config, returns the objective.
    """

    @functools.wraps(task)
    def main() -> None:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(help_text(_command()))
            return
        # As with python -m: the user's own modules lie where the command is typed.
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        register_nodes()
        hydra_main = hydra.main(str(conf_dir()), "config", version_base="1.3")(task)
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            hydra_main()
        else:
            _run_with_sentences(hydra_main)

    return main


def _run_with_sentences(hydra_main: Callable[[], None]) -> None:
    # With this set Hydra hands its errors on instead of printing them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra_main()
    except RunFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(RUN_FAILED)
    except ConfigError as error:
        _exit_with(error.problems)
    except (HydraException, OmegaConfBaseException) as error:
        from coreai_opt.experiment.diagnosis import diagnose

        _exit_with(diagnose(error, sys.argv[1:]))
    except OSError as error:
        name = f" {error.filename!r}" if error.filename else ""
        sentence = f"the run directory cannot be written: {error.strerror}{name}"
        _exit_with([Problem("", f"{sentence}; allowed: paths.output_root=DIR that is writable")])
    except ValueError as error:
        _exit_with([Problem("", str(error))])
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def _exit_with(problems: list[Problem]) -> None:
    print_problems(problems)
    sys.exit(CONFIG_WRONG)


def _command() -> str:
    program = Path(sys.argv[0]).name
    return f"python {program}" if program.endswith(".py") else program
