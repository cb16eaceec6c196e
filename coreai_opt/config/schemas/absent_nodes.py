"""Nodes that a config lacks: taken away with ``~``, null, or never in one's own primary config."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from coreai_opt.config.errors import Problem
from coreai_opt.config.groups import config_groups, find_group, root_knobs
from coreai_opt.config.schemas.nodes import nodes
from coreai_opt.config.schemas.settings import CheckpointSettings, ObjectiveSettings, SweepSettings

# What every run is made of. A group that is not here may be missing: it is one thing less.
MADE = ("data", "model", "trainer")
NEEDED = (*MADE, "paths", "checkpoint", "objective", "seed")
BELOW = {
    "objective": ("name", "mode"),
    "paths": ("output_root", "sweep_root", "run_dir"),
}

# Nodes of the primary config itself.
OWN_NODES: dict[str, type[BaseModel]] = {
    "objective": ObjectiveSettings,
    "checkpoint": CheckpointSettings,
    "sweep": SweepSettings,
}

NOT_FOUND = re.compile(r"Interpolation key '([^']+)' not found")


@dataclass(frozen=True)
class AbsentProblem(Problem):
    """A value that refers to a node at the root that is not there."""

    absent: str


def unresolved(name: str, text: str, root: Iterable[Any]) -> Problem:
    """Return the problem of a value that cannot be read.

    Args:
        name: of the value.
        text: what OmegaConf says.
        root: the keys at the root of the config.
    """
    sentence = f"{name} cannot be read: {text}"
    if (match := NOT_FOUND.match(text)) is not None:
        key = match[1].partition(".")[0]
        if key not in root and _is_known(key):
            return AbsentProblem(name, sentence, key)
    return Problem(name, sentence)


def absent_problems(values: Mapping[str, Any], problems: Iterable[Problem]) -> list[Problem]:
    """Return problems with one for each node that is missing in the place of all that follow of it.

    Args:
        values: the resolved config.
        problems: what cannot be read in it.
    """
    lacking = [
        name for name in NEEDED if name not in values or (name in MADE and values[name] is None)
    ]
    below = [
        f"{name}.{key}"
        for name, keys in BELOW.items()
        for key in keys
        if isinstance(values.get(name), Mapping) and key not in values[name]
    ]
    found = [_lacking(name, "every run needs it") for name in (*lacking, *below)]
    told = set(lacking)
    for problem in problems:
        if not isinstance(problem, AbsentProblem):
            found.append(problem)
        elif problem.absent not in told:
            told.add(problem.absent)
            found.append(_lacking(problem.absent, f"{problem.key} refers to it"))
    return found + _without_target(values) + _optimizer(values)


def _is_known(key: str) -> bool:
    options = [option for group in config_groups() for option in group.options]
    knobs = [*root_knobs(), *(knob for option in options for knob in option.knobs)]
    return find_group(key) is not None or key in {*NEEDED, *(knob.name for knob in knobs)}


def _lacking(name: str, why: str) -> Problem:
    return Problem(name, f"{name} is not there, and {why}; allowed: {_allowed(name)}")


def keys_of_node(name: str, settings: type[BaseModel]) -> str:
    """Return how the keys of a node are typed."""
    return ", ".join(f"{name}.{key}=VALUE" for key in settings.model_fields)


def _allowed(name: str) -> str:
    if name in OWN_NODES:
        return keys_of_node(name, OWN_NODES[name])
    group = find_group(name)
    return f"{name}=VALUE" if group is None else f"{name}={', '.join(group.names())}"


def _without_target(values: Mapping[str, Any]) -> list[Problem]:
    bare = [
        name
        for name in (*MADE, "optimizer")
        if values.get(name) is not None
        and not (isinstance(values[name], Mapping) and "_target_" in values[name])
    ]
    sentence = "has no _target_, which names a class"
    return [
        Problem(name, f"{name} {sentence}; allowed: {_allowed(name)}, or +{name}._target_=my.Class")
        for name in bare
    ]


def _optimizer(values: Mapping[str, Any]) -> list[Problem]:
    """A module of the user's may make its own optimizer; a network of ours has none."""
    model = values.get("model")
    target = model.get("_target_") if isinstance(model, Mapping) else None
    is_ours = any(one.group == "model" and one.target == target for one in nodes())
    if values.get("optimizer") is not None or not is_ours:
        return []
    sentence = f"optimizer is not there, and {target} has none of its own"
    return [Problem("optimizer", f"{sentence}; allowed: {_allowed('optimizer')}")]
