"""What a job asks for: its own knobs, read from its own config.

Hydra's callback objects hold the values of the whole multirun, and a job whose group is swept has
no callback at all; its config has the node all the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.aliases import keys_of
from coreai_opt.config.errors import Problem
from coreai_opt.plugin.factory import OURS, key_of_saved_knobs
from coreai_opt.plugin.knobs import Knobs
from coreai_opt.plugin.options import CALLBACK, TARGET
from coreai_opt.plugin.put_over import put_over

TYPED = f"hydra.callbacks.{CALLBACK}"


def asked_of(hydra: DictConfig) -> Knobs | None:
    """Return the knobs of a job, None where nothing is asked for.

    Args:
        hydra: Hydra's own node of the job's config.
    """
    prefix, problems = _prefix(hydra), list[Problem]()
    if prefix is None:
        return None
    if prefix == TYPED:
        node = hydra.callbacks[CALLBACK]
    else:
        # Read from where the node is: the knobs are at the root above it.
        node = OmegaConf.create({"knobs": f"${{{prefix}}}"}, parent=hydra)
        problems += put_over(hydra, prefix, typed_overrides(hydra))
    values = dict(_values(node, prefix, problems))
    typed = _below(prefix, typed_overrides(hydra))
    return Knobs(values, prefix, set(typed), hydra.mode == RunMode.MULTIRUN, problems)


def planned_of(hydra: DictConfig, values: Mapping[str, Any]) -> Knobs | None:
    """Return the knobs of a job that is not begun, None where nothing is asked for.

    Args:
        hydra: Hydra's own node of the job's config.
        values: the rest of its config, plain.
    """
    prefix = _prefix(hydra)
    if prefix is None:
        return None
    if prefix == TYPED:
        own: Any = OmegaConf.to_container(hydra.callbacks[CALLBACK], resolve=True)
        values = {**values, TYPED: {key: own[key] for key in own if not key.startswith("_")}}
    knobs = values.get(prefix)
    typed = _below(prefix, typed_overrides(hydra))
    return Knobs(knobs, prefix, set(typed), True) if isinstance(knobs, Mapping) else None


def knobs_in(config: Mapping[str, Any]) -> Knobs | None:
    """Return the knobs of pruning in a planned config, None where it has none."""
    of_hydra = ((config.get("hydra") or {}).get("callbacks") or {}).get("prune")
    nodes = {"hydra.callbacks.prune": of_hydra}
    nodes |= {key: config.get(key) for key in ("prune", "coreai_prune")}
    for prefix, node in nodes.items():
        if isinstance(node, Mapping) and set(node) >= OURS:
            return Knobs(node, prefix, is_sweep=True)
    return None


def swept_names(hydra: DictConfig) -> list[str]:
    """Return the names of the knobs that a multirun varies.

    Args:
        hydra: Hydra's own node of the multirun's config.
    """
    prefix = _prefix(hydra)
    if prefix is None:
        return []
    parser = OverridesParser.create()
    parsed = parser.parse_overrides(typed_overrides(hydra))
    swept = [str(one.key_or_group) for one in parsed if one.is_sweep_override()]
    params = OmegaConf.select(hydra, "sweeper.params") or {}
    return list(_below(prefix, [*swept, *map(str, params)]))


def typed_overrides(hydra: DictConfig) -> list[str]:
    """Return the overrides of a job as they were typed: a value may be an interpolation."""
    given: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    return [*given["task"], *given["hydra"]]


def _prefix(hydra: DictConfig) -> str | None:
    """Return the key of the node that has the knobs; None = nothing is asked for."""
    node = OmegaConf.select(hydra, f"callbacks.{CALLBACK}")
    if isinstance(node, DictConfig) and node.get("_target_") == TARGET:
        return str(node.get("knobs", TYPED))
    return key_of_saved_knobs(hydra)


def _values(node: DictConfig, prefix: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    knobs = node if prefix == TYPED else OmegaConf.select(node, "knobs")
    if not isinstance(knobs, DictConfig):
        sentence = f"{prefix}={knobs}: not a node; allowed: {prefix}.KEY=VALUE, or no +{prefix}"
        problems.append(Problem(prefix, sentence))
        return
    for key in map(str, knobs):
        if key.startswith("_"):
            continue
        name = f"{prefix}.{key}"
        try:
            if OmegaConf.is_missing(knobs, key):
                problems.append(Problem(name, f"{name} is not given; give {name}=VALUE"))
            value = knobs[key]
            is_node = OmegaConf.is_config(value)
            yield key, OmegaConf.to_container(value, resolve=True) if is_node else value
        except OmegaConfBaseException as error:
            text = str(error).splitlines()[0]
            problems.append(Problem(name, f"{name} cannot be read: {text}"))


def _below(prefix: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield the names of the knobs that overrides give, those in a dict too."""
    for text in texts:
        key, _, value = text.lstrip("+~").partition("=")
        keys = [key]
        if key == prefix and value.startswith("{"):
            keys = keys_of(OverridesParser.create().parse_override(text))
        yield from (one.removeprefix(f"{prefix}.") for one in keys if one.startswith(f"{prefix}."))
