"""What a command line asks for, seen before anything is composed, and without what plans sweeps."""

import sys
from argparse import Namespace

from coreai_opt.sweep.preview.request import read_request, without_png

__all__ = ["composes_only", "is_sweep", "shows", "wants_preview"]

# Hydra's own ways to show something instead of running; the first ones need no plugins of ours.
COMPOSING = ("cfg", "hydra_help", "version", "shell_completion")
SHOWING = (*COMPOSING, "info", "experimental_rerun")


def wants_preview(arguments: Namespace) -> bool:
    """Return whether a command line asks what would be run.

    What only the preview understands is taken out of the command line, here and in ``sys.argv``:
    Hydra has no key for it. Where Hydra itself is asked to show something, it answers.

    Args:
        arguments: as Hydra's own parser returns them.

    Raises:
        ConfigError: ``preview`` is neither true nor false.
    """
    request = read_request(arguments.overrides)
    is_wanted = request.is_wanted and not shows(arguments)
    kept = request.overrides if is_wanted else without_png(arguments.overrides)
    taken = [text for text in arguments.overrides if text not in kept]
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in taken]
    arguments.overrides, arguments.png = list(kept), request.png
    return is_wanted


def is_sweep(arguments: Namespace) -> bool:
    """Return whether lists of values are crossed."""
    modes = ("hydra.mode=MULTIRUN", "hydra.mode=RunMode.MULTIRUN")
    return arguments.multirun or any(mode in arguments.overrides for mode in modes)


def shows(arguments: Namespace) -> bool:
    """Return whether Hydra shows something instead of running."""
    return any(getattr(arguments, name, None) for name in SHOWING)


def composes_only(arguments: Namespace) -> bool:
    """Return whether Hydra shows what needs no sweeper and no launcher."""
    return any(getattr(arguments, name, None) for name in COMPOSING)
