"""Ranks of a run: their number, their starter and their command.

Imports nothing heavy: a sweep asks before it launches a job.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from coreai_opt.config.errors import Problem

BASIC = "BasicLauncher"

# Options without use for a rank, which is a single run.
SWEEP_ONLY = (
    "hydra.mode",
    "hydra.sweep.",
    "hydra.sweeper",
    "hydra.launcher",
    "hydra.run.dir",
    "hydra/sweeper",
    "hydra/launcher",
    "hydra.job.env_set.COREAI_OPT_SWEEP",  # inherited
)


Replace = Callable[[Sequence[str]], AbstractContextManager[None]]

_command: tuple[int, Replace] | None = None


def remember_command(replace: Replace) -> None:
    """Remember that this process was started by ``python SCRIPT``.

    Args:
        replace: makes its command line that of other words, for a while.
    """
    global _command
    _command = (os.getpid(), replace)


def is_command() -> bool:
    """Return whether this process is the command itself: no worker, no notebook."""
    return _command is not None and _command[0] == os.getpid()


def command_line_of(words: Sequence[str]) -> AbstractContextManager[None]:
    """Make the command line of this process that of other words; it is the command."""
    assert _command is not None
    return _command[1](words)


def launch_problem(
    launcher: str, processes: int | None, in_command: bool, by_cluster: bool
) -> Problem | None:
    """Return why the ranks of a job of a sweep cannot be started; None = they can.

    Args:
        launcher: ``_target_`` of the launcher.
        processes: as ``processes_of`` returns it.
        in_command: whether the job runs in the process of the command.
        by_cluster: whether the cluster starts a process for each rank itself.

    Example:
        >>> print(launch_problem("a.JoblibLauncher", 2, in_command=False, by_cluster=False))
        trainer.devices gives 2 processes with strategy=ddp: a worker of hydra/launcher=joblib \
cannot start the other ranks; allowed: the basic launcher (leave hydra/launcher out), \
hydra/launcher=slurm hydra.launcher.tasks_per_node=2, or trainer.devices=1
    """
    if processes is None or processes < 2 or by_cluster:
        return None
    is_basic = launcher.endswith(BASIC)
    if is_basic and in_command:
        return None
    who = f"a worker of hydra/launcher={_name_of(launcher)}" if not is_basic else "a notebook"
    allowed = "the basic launcher (leave hydra/launcher out)" if not is_basic else "python train.py"
    return Problem(
        "trainer.devices",
        f"trainer.devices gives {processes} processes with strategy=ddp: {who} cannot start the "
        f"other ranks; allowed: {allowed}, hydra/launcher=slurm hydra.launcher.tasks_per_node="
        f"{processes}, or trainer.devices=1",
    )


def rank_arguments(hydra: Sequence[str], task: Sequence[str]) -> list[str]:
    """Return the overrides with which a rank of a job is a single run, but for its directory.

    Args:
        hydra: the job's overrides of Hydra's settings.
        task: the job's other overrides.

    Example:
        >>> hydra = ["hydra.sweep.dir='a b'", "hydra.mode=MULTIRUN", "hydra.job.chdir=true"]
        >>> rank_arguments(hydra, ["seed=1"])
        ['hydra.job.chdir=true', 'seed=1']
    """
    kept = [one for one in hydra if not one.lstrip("+~").startswith(SWEEP_ONLY)]
    return [*kept, *task]


def run_dir_text(path: str) -> str:
    r"""Return a directory as text for the double quotes that Lightning puts around it.

    Example:
        >>> print(run_dir_text('say "a=b", ü'))
        say \"a=b\", ü
    """
    # Hydra takes a backslash for itself, unless a quote comes after it.
    return re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), path)


def restore_environment(before: Mapping[str, str | None]) -> None:
    """Give variables of this process the values that they had; None = there was none."""
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _name_of(launcher: str) -> str:
    """Return how a launcher is chosen on the command line, as far as its class tells.

    Example:
        >>> _name_of("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher")
        'submitit_local'
    """
    module, _, kind = launcher.rpartition(".")
    word = kind.removesuffix("Launcher").lower()
    return f"submitit_{word}" if "submitit" in module and word != "submitit" else word
