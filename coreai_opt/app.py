"""The command, as far as ``--help`` needs it: what runs anything is imported when it is to."""

import functools
import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coreai_opt.requirements import require_train

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["hydra_app"]

# Hydra's flags for what composes a config, shows it and ends.
SHOWING = {"--cfg", "-c", "--hydra-help", "--shell-completion", "-sc"}


def hydra_app(task: "Callable[[DictConfig], Any]") -> Callable[[], None]:
    """Make a command of a task: ``hydra.main`` over the project's config tree.

    Hydra's and OmegaConf's errors become one sentence each and exit code 1; a run that fails, and a
    sweep in which one did, exits with 2. ``HYDRA_FULL_ERROR=1`` in the environment keeps the stack
    traces. Without the packages of the extra ``train`` it exits with 1.

    Args:
        task: takes the composed config, returns the objective.
    """

    @functools.wraps(task)
    def main() -> None:
        if {"--help", "-h"} & set(sys.argv[1:]):
            from coreai_opt.cli.help import help_text
            from coreai_opt.report.formatting import program

            print(help_text(program()))
            return
        require_train()
        # Imports make objects that stay: looking for garbage among them takes a tenth of the time.
        gc.disable()
        from coreai_opt.cli.command_line import run_command

        if not SHOWING & set(sys.argv[1:]):
            gc.enable()
        run_command(task)

    return main
