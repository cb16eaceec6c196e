"""The command, as far as ``--help`` needs it: what runs anything is imported when it is to."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coreai_opt.cli.argv import asks_for_help, program
from coreai_opt.requirements import require_train

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["hydra_app"]


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
        if asks_for_help():
            from coreai_opt.cli.help import help_text

            print(help_text(program()))
            return
        require_train()
        from coreai_opt.cli.command_line import run_command

        run_command(task)

    return main
