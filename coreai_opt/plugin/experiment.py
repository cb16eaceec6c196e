"""Experiment of any app: what of a config counts, in a plan and in a job alike, and its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from coreai_opt.config.any_config import IGNORED, hash_of, identity_of, settled_config
from coreai_opt.config.errors import Problem
from coreai_opt.plugin.asked import planned_of
from coreai_opt.plugin.knobs import Knobs
from coreai_opt.plugin.settings import AnySweepSettings
from coreai_opt.runs.values import as_number

RETURNED = "objective"  # what a value is called that a task returns


@dataclass(frozen=True)
class AnyConfig:
    """The config of one run of any app.

    Attributes:
        values: plain, the same whenever and wherever the run is made.
        identity: what of them can change the result, by dotted key.
        ignore: patterns of what does not count besides the settings' own.
        knobs: of pruning, None where there is none.
    """

    values: dict[str, Any]
    identity: Mapping[str, Any] = field(repr=False)
    ignore: tuple[str, ...] = ()
    names: Mapping[Any, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    knobs: Knobs | None = field(default=None, repr=False)

    @property
    def hash(self) -> str:
        return hash_of(self.identity)

    def why_idle(self, key: str) -> str | None:
        knobs = self.knobs
        if knobs is None or not key.startswith(f"{knobs.prefix}."):
            return None
        name = key.removeprefix(f"{knobs.prefix}.")
        return None if name in knobs.own else knobs.option


def any_config(
    task: DictConfig, hydra: DictConfig, settings: AnySweepSettings, more: Sequence[str] = ()
) -> AnyConfig:
    """Return what a composed config says; in a sweep's plan and in its jobs alike.

    Args:
        task: without Hydra's own node.
        hydra: Hydra's own node.
        settings: of the sweep.
        more: patterns of keys that do not count besides those of the settings.
    """
    values = settled_config(task, hydra)
    knobs = planned_of(hydra, values)
    if knobs is not None and knobs.prefix not in values:
        values = {**values, "hydra": _nested(knobs.prefix, knobs.values)}
    identity = identity_of(counting(values, knobs), [*IGNORED, *settings.ignore, *more])
    return AnyConfig(values, identity, tuple(more), knobs=knobs)


def counting(values: Mapping[str, Any], knobs: Knobs | None) -> dict[str, Any]:
    """Return a config with what its knobs of pruning come to in their place.

    A dense control has none, and linear is poly with power=1.
    """
    if knobs is None:
        return dict(values)
    return {**beside_knobs(values, knobs), "pruning of this run": knobs.experiment}


def beside_knobs(values: Mapping[str, Any], knobs: Knobs) -> dict[str, Any]:
    """Return a config without its knobs of pruning."""
    first = knobs.prefix.partition(".")[0]
    return {key: values[key] for key in values if key != first}


def _nested(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs below the key where they stand, without its first part."""
    node: dict[str, Any] = dict(values)
    for part in reversed(prefix.split(".")[1:]):
        node = {part: node}
    return node


def result_of(
    returned: Any, metrics: Mapping[str, float], settings: AnySweepSettings
) -> dict[str, Any] | None:
    """Return what a run is judged by: what its task returned, or a metric of that name.

    Args:
        returned: by the task; numbers of a tuple or list are the objectives of a search. Where
            the settings name a metric, it does not count.
        metrics: of the run.
        settings: of its sweep.
    """
    name, mode = settings.objective or RETURNED, settings.mode
    if settings.objective is not None:
        return {"name": name, "mode": mode, "value": metrics.get(name)}
    if isinstance(returned, list | tuple) and returned:
        numbers = [as_number(one) for one in returned]
        if None not in numbers:
            return {"name": name, "mode": mode, "value": numbers[0], "values": numbers}
    value = as_number(returned)
    return None if value is None else {"name": name, "mode": mode, "value": value}
