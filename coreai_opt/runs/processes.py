"""Who starts the processes of a run: SLURM, another launcher, or the run itself.

Imports nothing heavy: it is asked before a directory is made.
"""

import os
from collections.abc import Mapping
from typing import Literal

Starter = Literal["slurm", "run", "other"]

# Set by those who start ranks themselves: torchrun, LSF and MPI are left to Lightning.
TORCHRUN = "TORCHELASTIC_RUN_ID"


def starter(environment: Mapping[str, str]) -> Starter:
    """Return who starts a process for each rank.

    ``slurm``: srun has started all of them, this is one. ``run``: within a SLURM job, the run has
    to start them, as a single task or without srun. ``other``: nothing is known of SLURM, or
    torchrun has started them; Lightning finds out.

    Args:
        environment: variables of the process.

    Example:
        >>> step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
        >>> starter({"SLURM_JOB_ID": "7", **step})
        'slurm'
        >>> starter({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"})
        'run'
        >>> starter({})
        'other'
    """
    if "SLURM_JOB_ID" not in environment or TORCHRUN in environment:
        return "other"
    # In a batch script SLURM_NTASKS is what was asked for, and one process was started.
    if "SLURM_STEP_ID" not in environment or "SLURM_PROCID" not in environment:
        return "run"
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    return "slurm" if tasks.isdecimal() and int(tasks) > 1 else "run"


def starts_ranks(environment: Mapping[str, str]) -> bool:
    """Return whether a process for each rank has been started by a cluster or by torchrun."""
    return TORCHRUN in environment or starter(environment) == "slurm"


def rank_of(environment: Mapping[str, str]) -> int:
    """Return the rank of this process among those of its run; 0 where it is the only one.

    Lightning says only which rank a process has on its machine: 0 on each of them.

    Example:
        >>> rank_of({"LOCAL_RANK": "1"}), rank_of({"NODE_RANK": "1", "LOCAL_RANK": "0"})
        (1, 1)
    """
    if starter(environment) == "slurm":
        return int(environment["SLURM_PROCID"])
    names = ("RANK", "LOCAL_RANK", "NODE_RANK")
    return max(int(environment.get(name) or 0) for name in names)


def launch_id(environment: Mapping[str, str]) -> str | None:
    """Return what all ranks of one launch by a cluster have in common, and no other launch has.

    None where rank 0 starts the others: they come after it.

    Example:
        >>> step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
        >>> launch_id({"SLURM_JOB_ID": "7", **step, "SLURM_RESTART_COUNT": "1"})
        'slurm-7-0-1'
    """
    if starter(environment) == "slurm":
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "-".join(["slurm", *(environment.get(name, "0") for name in names)])
    if TORCHRUN in environment:
        names = (TORCHRUN, "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
        return "-".join(["torchrun", *(environment.get(name, "0") for name in names)])
    return None


def is_main_process() -> bool:
    """Return whether this process writes the record: the only one, or rank 0 of several."""
    return rank_of(os.environ) == 0


def process_exists(pid: int) -> bool:
    """Return whether a process of this machine has that number; True where nobody can say."""
    if os.name == "nt":
        return True  # signal 0 is Ctrl-C there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True
