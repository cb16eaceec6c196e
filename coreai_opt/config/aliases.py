"""Aliases: values of nodes that are taken from a knob at the root, and knobs that do not count.

A knob does not count where the key of the node that takes its value is given itself.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.hydra_internals import child_node, has_value, raw_text
from coreai_opt.config.identity import flatten
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.validation import ALIAS


def alias_of(config: DictConfig, key: str) -> str | None:
    """Return the key that a value is taken from by ``${KEY}``, None where it is taken from none."""
    node: Any = config
    *parents, last = key.split(".")
    for part in parents:
        node = child_node(node, part) if isinstance(node, DictConfig) and has_value(node) else None
    match = ALIAS.match(raw_text(node, last)) if node is not None and has_value(node) else None
    return None if match is None else match[1]


def shadowed_knobs(overrides: Sequence[str], config_name: str) -> list[str]:
    """Return a sentence for each knob whose value another override puts its own in the place of.

    Hydra must be able to compose. It does so only where two overrides may meet: it takes 0.1 s.

    Args:
        overrides: of a single run, as typed.
        config_name: the primary config's name.
    """
    kept = [one for one in overrides if not one.startswith("~")]
    given = {key: one for one in kept for key in _keys(one)}
    nodes = {key: one for key, one in given.items() if "." in key}
    knobs = [key for key in given if "." not in key]
    aliases = set(_aliases(knobs)) if nodes and knobs else set()
    if not any(key.rpartition(".")[2] in aliases for key in nodes):
        return []
    try:
        before = compose(config_name, [one for one in overrides if one not in nodes.values()])
    except (HydraException, OmegaConfBaseException, ValueError):
        return []
    return shadowing(nodes, knobs, lambda key: alias_of(before, key))


def shadowing(
    nodes: Mapping[str, str], knobs: Collection[str], alias: Callable[[str], str | None]
) -> list[str]:
    """Return a sentence for each knob that does not count in a node's key.

    Args:
        nodes: the override that gives each key.
        knobs: what is given at the root.
        alias: returns the knob that a key takes its value from, None where it takes none.
    """
    found = ((key, alias(key)) for key in nodes)
    return [
        f"{knob} does not count in {key}, which is given itself: {nodes[key]}"
        for key, knob in found
        if knob in knobs
    ]


def keys_of(override: Override) -> list[str]:
    """Return the dotted keys that an override of one value gives, those within a dict."""
    return list(flatten(override.value(), str(override.key_or_group)))


def _keys(text: str) -> list[str]:
    key, _, value = text.lstrip("+").partition("=")
    # To read all of them takes time, and only a dict has others.
    return keys_of(OverridesParser.create().parse_override(text)) if value[:1] == "{" else [key]


def _aliases(knobs: Iterable[str]) -> Iterable[str]:
    """Yield the keys that our config files give the values of some knobs."""
    names = "|".join(map(re.escape, knobs))
    pattern = re.compile(rf"^\s*(\w+):\s*\$\{{(?:{names})\}}", re.MULTILINE)
    for file in conf_dir().rglob("*.yaml"):
        yield from pattern.findall(file.read_text(encoding="utf-8"))
