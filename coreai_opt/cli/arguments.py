"""What a command line asks for, seen before anything is composed, and without what plans sweeps."""

import re
from argparse import Namespace

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.cli.argv import take_out
from coreai_opt.config.composing import command_context
from coreai_opt.config.locations import conf_dir
from coreai_opt.sweep.preview.request import PNG, key_of, read_request

# What a file has that sets hydra.mode, or lets other files do it.
FILED = re.compile(rb"MULTIRUN|\bmode:\s*2\b|searchpath")

# Hydra's own ways to show something instead of running.
SHOWING = ("cfg", "hydra_help", "version", "shell_completion", "info", "experimental_rerun")


def wants_preview(arguments: Namespace) -> bool:
    """Return whether a command line asks what would be run.

    What only the preview understands is taken out of the command line, here and in what Hydra
    reads: Hydra has no key for it. Where Hydra itself is asked to show something, it answers.

    Args:
        arguments: as Hydra's own parser returns them.

    Raises:
        ConfigError: ``preview`` is neither true nor false.
    """
    request = read_request(arguments.overrides)
    is_wanted = request.is_wanted and not shows(arguments)
    kept = list(request.overrides)
    if not is_wanted:
        kept = [text for text in arguments.overrides if key_of(text) != PNG]
    take_out([text for text in arguments.overrides if text not in kept])
    arguments.overrides, arguments.png = kept, request.png
    return is_wanted


def is_sweep(arguments: Namespace) -> bool:
    """Return whether lists of values are crossed: by a flag, or by ``hydra.mode``, typed or filed.

    Args:
        arguments: as Hydra's own parser returns them; they keep the answer.
    """
    if not hasattr(arguments, "is_sweep"):
        arguments.is_sweep = bool(arguments.multirun) or _is_multirun(arguments)
    return bool(arguments.is_sweep)


def _is_multirun(arguments: Namespace) -> bool:
    typed = [one for one in arguments.overrides if one.lstrip("+").startswith("hydra.mode=")]
    if typed:
        return str(typed[-1]).endswith("MULTIRUN")
    # Composing takes 0.1 s, and no file of ours says so as it is delivered.
    return _may_be_filed(arguments) and _filed_mode(arguments) == RunMode.MULTIRUN


def _may_be_filed(arguments: Namespace) -> bool:
    """Return whether a config file may set ``hydra.mode``: one of the user's, or a changed one."""
    flags = (
        getattr(arguments, name, None) for name in ("config_dir", "config_name", "config_path")
    )
    if any(flags) or any("hydra.searchpath" in one for one in arguments.overrides):
        return True
    return any(FILED.search(file.read_bytes()) for file in conf_dir().rglob("*.yaml"))


def _filed_mode(arguments: Namespace) -> RunMode | None:
    """Return the mode as Hydra itself finds it, None where the command line is wrong."""
    with command_context(arguments) as name:
        loader = GlobalHydra.instance().config_loader()
        try:
            config = loader.load_configuration(
                name,
                list(arguments.overrides),
                RunMode.MULTIRUN,
                from_shell=False,
                validate_sweep_overrides=False,
            )
            mode: RunMode | None = config.hydra.mode
        except (HydraException, OmegaConfBaseException, ValueError):
            return None  # whoever composes next says what is wrong
        return mode


def shows(arguments: Namespace) -> bool:
    """Return whether Hydra shows something instead of running."""
    return any(getattr(arguments, name, None) for name in SHOWING)
