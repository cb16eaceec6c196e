"""Config of any app as plain values, and which of its runs are the same experiment.

Nothing is known of its schema: what does not resolve stays as it is written, and what only says
when and where a run is made counts as a name for that.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.hydra_internals import (
    child_node,
    has_value,
    plain_value,
    raw_text,
    resolvers_replaced,
)
from coreai_opt.config.identity import flatten, is_ignored

MISSING = "???"

NOW = "<now>"

# What stands in an identity for what says when and where a run is made, by key of Hydra's node.
NAMES = {
    "runtime.output_dir": "RUN_DIR",
    "runtime.cwd": "CWD",
    "run.dir": "RUN_DIR",
    "sweep.dir": "SWEEP_DIR",
    "sweep.subdir": "RUN",
    "job.num": 0,
    "job.id": "0",
    "job.override_dirname": "OVERRIDES",
}

# Keys that hardly any app gives another meaning than where it writes, what it is called, and how
# fast it loads. ``*`` goes over dots.
IGNORED = (
    "paths",
    "logger",
    "loggers",
    "*.logger",
    "*.loggers",
    "wandb",
    "mlflow",
    "tensorboard",
    "tags",
    "notes",
    "task_name",
    "run_name",
    "exp_name",
    "experiment_name",
    "extras",
    "print_config",
    "*progress_bar*",
    "*.enable_model_summary",
    "*model_summary",
    "*.log_every_n_steps",
    "*.default_root_dir",
    "*.dirpath",
    "*num_workers",
    "*pin_memory",
    "*persistent_workers",
    "*prefetch_factor",
    "*verbose",
)


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """Return a config as plain values; what does not resolve as it is written.

    Args:
        cfg: the composed config, without Hydra's own node.

    Example:
        >>> cfg = OmegaConf.create({"a": 1, "b": "${a}", "c": "${oc.env:NOT_SET_ANYWHERE}"})
        >>> plain_config(cfg)
        {'a': 1, 'b': 1, 'c': '${oc.env:NOT_SET_ANYWHERE}'}
    """
    return {str(key): _read(cfg, key) for key in cfg}


def _read(parent: Any, key: Any) -> Any:
    # Most values stand there as they are; OmegaConf's own way to them takes ten times as long.
    node = child_node(parent, key)
    if (found := plain_value(node)) is not None:
        return plain(found)
    if isinstance(node, DictConfig | ListConfig) and has_value(node):
        return _below(node)
    try:
        return MISSING if OmegaConf.is_missing(parent, key) else _below(parent[key])
    except OmegaConfBaseException:
        return raw_text(parent, key)


def _below(value: Any) -> Any:
    if isinstance(value, DictConfig):
        return {str(key): _read(value, key) for key in value}
    if isinstance(value, ListConfig):
        return [_read(value, index) for index in range(len(value))]
    return plain(value)


def plain(value: Any) -> Any:
    """Return a value as JSON has it; an object of a class by that and its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    text = repr(value)  # torch.float16, and its like
    named = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"<{named}>" if " at 0x" in text else f"<{named} {text}>"


def settled_config(cfg: DictConfig, hydra: DictConfig) -> dict[str, Any]:
    """Return a config as plain values that are the same whenever and wherever its run is made.

    The time, the number of the job, and the directories of the run and of the sweep are names.

    Args:
        cfg: the composed config, without Hydra's own node.
        hydra: Hydra's own node.
    """
    cfg = cfg.copy()
    # The time of the sweep is there already.
    OmegaConf.get_cache(cfg).pop("now", None)
    with anywhere(hydra):
        return plain_config(cfg)


@contextmanager
def anywhere(hydra: DictConfig) -> Iterator[None]:
    """Let ``${hydra:...}`` and ``${now:...}`` resolve to names for as long as a config is read.

    Args:
        hydra: Hydra's own node.
    """

    def of_hydra(path: str) -> Any:
        return NAMES[path] if path in NAMES else OmegaConf.select(hydra, path)

    with resolvers_replaced({"now": lambda *_: NOW, "hydra": of_hydra}):
        yield


def identity_of(values: Mapping[str, Any], ignore: Collection[str] = IGNORED) -> dict[str, Any]:
    """Return the part of a config that can change the result, by dotted key.

    Args:
        values: as ``settled_config`` returns them.
        ignore: patterns over dotted keys, of what cannot; ``!KEY`` = it can all the same.

    Example:
        >>> identity_of({"lr": 1, "paths": {"data": "a"}, "loader": {"num_workers": 2}})
        {'lr': 1.0}
        >>> identity_of({"tags": "a", "logger": "b"}, [*IGNORED, "!tags"])
        {'tags': 'a'}
    """
    flat = flatten(dict(values))
    counting = [one.removeprefix("!") for one in ignore if one.startswith("!")]
    others = [one for one in ignore if not one.startswith("!")]
    return {
        key: flat[key]
        for key in sorted(flat)
        if is_ignored(key, counting) or not is_ignored(key, others)
    }


def hash_of(identity: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that are equal for equal identities."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs of two identities, ``key: old -> new`` each."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{key}: {before.get(key, '(none)')} -> {now.get(key, '(none)')}" for key in keys]
