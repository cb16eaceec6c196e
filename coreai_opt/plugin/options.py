"""Served options: what ``+prune=poly`` puts into the config of an app.

Knobs and defaults are those of ``conf/schedule`` and ``conf/pruning``, but for a ramp that fits
into any training: hundredths of it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.locations import conf_dir

# Group -> the key at the root that its knobs are under, None = directly under Hydra's callback.
GROUPS = {"prune": "prune", "coreai_prune": "coreai_prune", "prune_typed": None}

SCHEDULES = ("none", "constant", "linear", "poly", "cubic", "cosine", "exponential", "multistep")

# What people type -> the option of conf/pruning.
PATTERNS = {"unstructured": "magnitude", "n_m": "n_m", "block": "block", "channel": "channel"}

TARGET = "coreai_opt.plugin.PruneJob"
CALLBACK = "prune"  # its name under hydra.callbacks

# In hundredths of the training, so that a ramp is neither over at once nor longer than all of it.
TRAVELS = {"begin_step": 10, "total_iters": 60, "milestones": [25, 40, 55, 70]}

# Knobs of every job that no file of conf has.
OF_THE_JOB: dict[str, Any] = {
    "dense": [],
    "masks_from": "schedule",
    "init_from": None,
    "gate": True,
    "monitor": False,
}


def option(group: str, schedule: str) -> tuple[DictConfig, str]:
    """Return the config of an option, and its package.

    Args:
        group: one of ``GROUPS``.
        schedule: one of ``SCHEDULES``.
    """
    key = GROUPS[group]
    if key is None:
        node = {"_target_": TARGET, **defaults(schedule)}
        return OmegaConf.create(node), f"hydra.callbacks.{CALLBACK}"
    # The name, and no interpolation: Hydra would resolve all of it before there is a job.
    callback = {"_target_": TARGET, "knobs": key}
    made = {key: defaults(schedule), "hydra": {"callbacks": {CALLBACK: callback}}}
    return OmegaConf.create(made), "_global_"


def defaults(schedule: str) -> dict[str, Any]:
    """Return all knobs of a job with a schedule, with their defaults."""
    of_patterns = dict.fromkeys(name for known in PATTERNS for name in knobs_of("pattern", known))
    of_every = knobs_of("pattern", "unstructured")
    return {
        "schedule": schedule,
        "target_sparsity": of_every["target_sparsity"],
        "interval": "percent",
        **knobs_of("schedule", schedule),
        "pattern": "unstructured",
        # null is the default of whichever pattern is chosen.
        **{name: None for name in of_patterns if name not in of_every},
        **{name: value for name, value in of_every.items() if name != "target_sparsity"},
        **OF_THE_JOB,
    }


def knobs_of(kind: str, name: str) -> dict[str, Any]:
    """Return the knobs that a schedule or a pattern has, with their defaults.

    Args:
        kind: ``"schedule"`` or ``"pattern"``.
        name: one of ``SCHEDULES`` or ``PATTERNS``.
    """
    content = _content(*_file(kind, name))
    found = {key: value for key, value in content.items() if key != _group(kind)}
    return {key: TRAVELS.get(key, value) for key, value in found.items()}


def node_of(kind: str, name: str) -> Mapping[str, Any] | None:
    """Return the node of a schedule or a pattern, with ``${knob}`` where a value is a knob's."""
    node: Mapping[str, Any] | None = _content(*_file(kind, name))[_group(kind)]
    return node


def _group(kind: str) -> str:
    return "schedule" if kind == "schedule" else "pruning"


def _file(kind: str, name: str) -> tuple[str, str]:
    return (kind, name) if kind == "schedule" else ("pruning", PATTERNS[name])


@cache
def _content(group: str, name: str) -> dict[str, Any]:
    """Return an option of ``conf`` with its parents in the same folder merged in."""
    text = (conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    parents = content.pop("defaults", [])
    merged: dict[str, Any] = {}
    for parent in parents:
        base, _, package = parent.partition("@")
        if base.startswith("/schema/"):
            merged = {package: {"base": base.rpartition("/")[2]}}
        elif base != "_self_":
            merged = _merged(merged, _content(group, base))
    return _merged(merged, content)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(one)
    for key, value in other.items():
        inner = both.get(key)
        is_both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        both[key] = _merged(inner, value) if is_both else value  # type: ignore[arg-type]
    return both
