"""Aliases: values of nodes that are taken from a knob at the root, and knobs that do not count.

A knob does not count where the key of the node that takes its value is given itself.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.experiment.places import conf_dir
from coreai_opt.experiment.validation import ALIAS

__all__ = ["alias_of", "shadowed_knobs"]


def alias_of(config: DictConfig, key: str) -> str | None:
    """Return the key that a value is taken from by ``${KEY}``, None where it is taken from none."""
    node: Any = config
    for part in key.split("."):
        is_node = isinstance(node, DictConfig) and isinstance(node._content, dict)
        node = node._content.get(part) if is_node else None
    match = ALIAS.match(str(node._value())) if node is not None else None
    return None if match is None else match[1]


def shadowed_knobs(overrides: Sequence[str], config_name: str) -> list[str]:
    """Return a sentence for each knob whose value another override puts its own in the place of.

    Hydra must be able to compose. It does so only where two overrides may meet: it takes 0.1 s.

    Args:
        overrides: of a single run, as typed.
        config_name: the primary config's name.
    """
    given = {_key(one): one for one in overrides}
    nodes = [key for key in given if "." in key and not given[key].startswith("~")]
    knobs = [key for key in given if "." not in key]
    aliases = set(_aliases(knobs)) if nodes and knobs else set()
    if not any(key.rpartition(".")[2] in aliases for key in nodes):
        return []
    try:
        before = compose(config_name, [one for key, one in given.items() if key not in nodes])
    except (HydraException, OmegaConfBaseException, ValueError):
        return []
    pairs = ((key, alias_of(before, key)) for key in nodes)
    return [
        f"{knob} does not count in {key}, which is given itself: {given[key]}"
        for key, knob in pairs
        if knob in knobs
    ]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _aliases(knobs: Iterable[str]) -> Iterable[str]:
    """Yield the keys that our config files give the values of some knobs."""
    names = "|".join(map(re.escape, knobs))
    pattern = re.compile(rf"^\s*(\w+):\s*\$\{{(?:{names})\}}", re.MULTILINE)
    for file in conf_dir().rglob("*.yaml"):
        yield from pattern.findall(file.read_text(encoding="utf-8"))
