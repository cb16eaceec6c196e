"""Rank processes: started as single runs, watched, and ended with the run."""

import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import read_write

from coreai_opt.config.composing import flags_of, typed_flags
from coreai_opt.config.errors import message_of
from coreai_opt.config.hydra_internals import raw_text
from coreai_opt.distributed.ranks import (
    command_line_of,
    is_command,
    rank_arguments,
    restore_environment,
    run_dir_text,
)
from coreai_opt.runs.processes import is_main_process, process_exists
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning_internals import PROCESS_OBSERVER

# The process of rank 0, for those that it starts: it may be gone before they look.
RANK_0 = "COREAI_OPT_RANK_0_PID"
# Variables that must not stay: with Lightning's own the next run would start no ranks.
LEFT = (RANK_0, "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
CONNECTIONS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")

POLL_S = 0.5
GRACE_S = 20.0  # for this process to notice that it has lost a rank
LAST_WORDS_S = 5.0  # for a rank that has failed to say so and end
END_S = 30.0  # for the other ranks to end by themselves

Processes = Sequence["subprocess.Popen[bytes]"]


class RankLostError(RuntimeError):
    """A process of the run has ended before the others."""

    def __init__(self, rank: int, code: int) -> None:
        self.rank, self.code = rank, code
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"rank {rank} {how} before the run did")


@contextmanager
def ranks_of_this_run(
    root: str = "pytorch_lightning", command: AbstractContextManager[None] | None = None
) -> Iterator[None]:
    """Let Lightning start the other ranks of a run, in a sweep as well, and leave nothing behind.

    Lightning runs ``sys.argv`` again for each rank, which in a sweep is the sweep; within this they
    are the command of the one run. It ends the process of the command when a rank has failed, and
    with it a sweep; within this the run fails alone. Afterwards the process is as it was before:
    the next run starts ranks of its own.

    On another rank than 0: the process ends when that of rank 0 is gone.

    Args:
        root: of Lightning, ``pytorch_lightning`` or ``lightning.pytorch``.
        command: makes the command line that of the one run; None = that of our own app's.
    """
    if not is_main_process():
        follow_rank_0()
        yield
        return
    subprocess_script = importlib.import_module(f"{root}.strategies.launchers.subprocess_script")
    ranks, hooks = _Ranks(), MethodPatches()
    environment = {name: os.environ.get(name) for name in LEFT}
    had_group = dist.is_available() and dist.is_initialized()
    try:
        # Lightning's own watch kills this process as soon as a rank has ended with an error.
        hooks.instead(subprocess_script, PROCESS_OBSERVER, ranks.watch)
        os.environ[RANK_0] = str(os.getpid())
        with _command_of_one_run() if command is None else command:
            yield
    except BaseException as error:
        lost = ranks.lost() if is_lost_connection(error) else None
        ranks.end(at_once=True)
        if lost is not None:
            raise RankLostError(*lost) from error
        raise
    finally:
        hooks.restore()
        ranks.end()
        restore_environment(environment)
        if not had_group and dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error means that the connection to another process is lost.

    Errors of its own are raised on all ranks, and say more than that the others have ended too.

    Example:
        >>> is_lost_connection(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed"))
        True
        >>> is_lost_connection(RuntimeError("shapes do not match"))
        False
    """
    by_torch = dist.is_available() and isinstance(error, dist.DistError)
    return by_torch or (
        isinstance(error, RuntimeError) and any(word in message_of(error) for word in CONNECTIONS)
    )


class _Ranks:
    """The processes that Lightning has started."""

    def __init__(self) -> None:
        self._processes: Processes = ()
        self._is_over = threading.Event()

    def watch(self, processes: Processes) -> None:
        """See to it that no rank waits for ever for one that is lost."""
        self._processes = processes
        threading.Thread(target=self._run, name="ranks", daemon=True).start()

    def lost(self) -> tuple[int, int] | None:
        """Return rank and exit code of a process that has failed; waits for one that is about to.

        This process may have seen only a closed connection.
        """
        deadline = time.monotonic() + LAST_WORDS_S
        while self._processes:
            for rank, process in enumerate(self._processes, start=1):
                if process.poll():
                    return rank, process.returncode
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S / 10)
        return None

    def end(self, at_once: bool = False) -> None:
        """Wait until the ranks have ended; those that do not are killed."""
        self._is_over.set()
        deadline = time.monotonic() + (POLL_S if at_once else END_S)
        for process in self._processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self) -> None:
        while not self._is_over.wait(POLL_S):
            if any(process.poll() for process in self._processes):
                # Over gloo this process gets an error. Over NCCL it may wait in the driver,
                # where no signal but this one reaches it.
                if not self._is_over.wait(GRACE_S):
                    for process in self._processes:
                        process.kill()
                    os.kill(os.getpid(), signal.SIGKILL)
                return


@contextmanager
def _command_of_one_run() -> Iterator[None]:
    # A worker's command line is its launcher's, and starts no ranks.
    is_worker = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if not HydraConfig.initialized() or (is_worker and not is_command()):
        yield
        return
    hydra: Any = HydraConfig.get()
    command: AbstractContextManager[None] = nullcontext()
    run_dir = raw_text(hydra.run, "dir")
    if hydra.mode == RunMode.MULTIRUN:
        flags, overrides = flags_of(typed_flags.get()), hydra.overrides
        words = rank_arguments(list(overrides.hydra), list(overrides.task))
        command = command_line_of([*flags, *words])
    try:
        with read_write(hydra):
            hydra.run.dir = run_dir_text(str(hydra.runtime.output_dir))
        with command:
            yield
    finally:
        with read_write(hydra):
            hydra.run.dir = run_dir


@cache
def follow_rank_0() -> None:
    """End this process, a rank other than 0, when that of rank 0 is gone."""
    rank_0 = os.environ.get(RANK_0)
    _follow(os.getppid(), None if rank_0 is None else int(rank_0))


def _follow(parent: int, rank_0: int | None) -> None:
    # The parent of a rank that looks late is another process than rank 0, as that of a rank that a
    # wrapper around Python has started always is.
    watched = None if rank_0 == parent else rank_0

    def run() -> None:
        while os.getppid() == parent and (watched is None or process_exists(watched)):
            time.sleep(POLL_S)
        time.sleep(GRACE_S)  # to end by itself: rank 0 may have been faster
        os._exit(1)

    threading.Thread(target=run, name="rank 0", daemon=True).start()
