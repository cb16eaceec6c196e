"""Command that jobs of any app are begun by."""

import os
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from coreai_opt.config.composing import flags_of
from coreai_opt.config.hydra_internals import get_args_parser


@dataclass(frozen=True)
class Command:
    """The command that a sweep was begun with.

    Attributes:
        name: of the app.
        program: how it is called, ``python their_app.py``.
        flags: what was typed besides overrides, as ``--config-dir=DIR``.
        process: host and number of its process.
    """

    name: str
    program: str
    flags: tuple[str, ...]
    process: tuple[str, int]

    @property
    def is_here(self) -> bool:
        """Whether this very process is it."""
        return self.process == (socket.gethostname(), os.getpid())


def command_of(config: DictConfig) -> Command:
    """Return the command that this process was started with.

    Args:
        config: as Hydra has composed it.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    script = Path(sys.argv[0])
    if spec is not None:
        program = f"python -m {spec.name.removesuffix('.__main__')}"
    else:
        is_file = script.suffix == ".py"
        program = shlex.join(["python", sys.argv[0]]) if is_file else script.name
    try:
        typed, _ = get_args_parser().parse_known_args(sys.argv[1:])
        flags = tuple(flags_of(typed))
    except SystemExit:  # words of a program that is not Hydra's own main function
        flags = ()
    here = (socket.gethostname(), os.getpid())
    return Command(str(config.hydra.job.name), program, flags, here)
