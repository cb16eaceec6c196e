"""Which classes and functions a config may name: all, or those of a list.

The list is kept in the environment, for the workers of a sweep to have it as well.
"""

import os
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.composing import command_context
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import nodes

VARIABLE = "COREAI_OPT_ALLOWED_TARGETS"

NAME = r"[A-Za-z_]\w*"
PATTERN = re.compile(rf"({NAME}\.)+({NAME}|\*)")
IN_FILE = re.compile(r"^\s*_target_: *(\S+)", re.MULTILINE)

# Nodes and keys whose value is the dotted path of a class where it is no key of a registry.
CLASS_KEYS = ("pruning_algo",)
IN_TYPED = (("pruning_scheme",), ("sparsity_schedule",))

Path = tuple[str, ...]


def allowed_targets(patterns: Iterable[str] | None) -> None:
    """Let configs name only what our own options name, and what these patterns match.

    From then on a config with another ``_target_``, or with the dotted path of another criterion,
    is refused before anything is made of it or imported for it, Hydra's own nodes included. It
    counts for this process and for those that it starts. The environment variable
    ``COREAI_OPT_ALLOWED_TARGETS`` says the same, with colons between the patterns; when it is set
    to nothing, only our own are allowed.

    Args:
        patterns: dotted paths, as configs name them. The last part may be ``*``, any one name of
            that module; what the module imports from elsewhere is among them. Empty = only our
            own; None = anything, which is the default.

    Raises:
        ValueError: a pattern that is no dotted path.

    Example:
        >>> allowed_targets(["my.models.*", "torch.optim.RMSprop"])
        >>> why_refused("my.models.Net") is None
        True
        >>> why_refused("os.system")
        'is not among the allowed targets; allowed: those of our options, my.models.*, \
torch.optim.RMSprop'
        >>> allowed_targets(None)
    """
    if patterns is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = ":".join(_checked(patterns))


def why_refused(target: str) -> str | None:
    """Return what is wrong with a target by the list, None for nothing.

    Raises:
        ValueError: the environment variable holds a pattern that is no dotted path.
    """
    if VARIABLE not in os.environ:
        return None
    patterns = _checked(filter(None, os.environ[VARIABLE].split(":")))
    module, _, _ = target.rpartition(".")
    if target in _own() or target in patterns or f"{module}.*" in patterns:
        return None
    allowed = ", ".join(["those of our options", *patterns])
    return f"is not among the allowed targets; allowed: {allowed}"


def named_targets(values: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield what a config names to be imported, each with the path of its key.

    Args:
        values: the resolved config, or a part of it.
        path: the path of that part.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            place = (*path, str(key))
            is_class = key in CLASS_KEYS or (key == "type" and path[-1:] in IN_TYPED)
            if key == "_target_" or (is_class and "." in str(value)):
                yield place, str(value)
            else:
                yield from named_targets(value, place)
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from named_targets(value, (*path, str(index)))


def check_hydra_targets(arguments: Namespace) -> None:
    """Check what Hydra itself makes of a command line, before it makes any of it.

    Its callbacks are made before one of them could look. Which launcher and sweeper are plugins is
    checked by Hydra.

    Args:
        arguments: as Hydra's own parser returns them.

    Raises:
        ConfigError: a target that the list does not allow, or a config that changes the list.
    """
    if VARIABLE not in os.environ:
        return
    with command_context(arguments) as config_name:
        running = GlobalHydra.instance().hydra
        assert running is not None
        config = running.compose_config(
            config_name=config_name,
            overrides=arguments.overrides,
            run_mode=RunMode.MULTIRUN if arguments.multirun else RunMode.RUN,
            with_log_configuration=False,
            validate_sweep_overrides=False,
        )
    problems = []
    for path, target in _unread_targets(config.hydra, ("hydra",)):
        name = ".".join(path)
        if path[1:] not in (("launcher", "_target_"), ("sweeper", "_target_")):
            reason = why_refused(target)
            problems += [Problem(name, f"{name}={target} {reason}")] if reason else []
    if VARIABLE in config.hydra.job.env_set:
        name = f"hydra.job.env_set.{VARIABLE}"
        problems.append(Problem(name, f"{name}: a config may not change what it may name"))
    if problems:
        raise ConfigError(problems)


def _unread_targets(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the targets of a config of which not everything can be resolved yet."""
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        place = (*path, str(key))
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException as error:
            if key == "_target_":
                yield place, f"({' '.join(str(error).split())})"
            continue
        if key == "_target_":
            yield place, str(value)
        elif isinstance(value, Container):
            yield from _unread_targets(value, place)


def _checked(patterns: Iterable[str]) -> list[str]:
    listed = list(patterns)
    for pattern in listed:
        if not PATTERN.fullmatch(pattern):
            raise ValueError(
                f"allowed_targets: {pattern!r} is no dotted path; "
                "allowed: my.module.Class, or my.module.* for all names of a module"
            )
    return listed


def _own() -> set[str]:
    # Those of schedules that a user has registered are nodes as well.
    return {node.target for node in nodes()} | _in_files()


@cache
def _in_files() -> frozenset[str]:
    texts = (file.read_text(encoding="utf-8") for file in conf_dir().rglob("*.yaml"))
    return frozenset(target for text in texts for target in IN_FILE.findall(text))
