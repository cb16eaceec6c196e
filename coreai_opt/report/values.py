"""Knob values as text: one text a value, whether typed or a default."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from coreai_opt.report.records import RunRow, mapping

# Truth values of OmegaConf besides true and false.
TRUTH = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}


def knob_value(row: RunRow, key: str) -> str | None:
    """Return the value of a knob: as typed, else of the config, else None.

    A group has its option as value, another node its class and values.

    Example:
        >>> from pathlib import Path
        >>> record = {"config": {"power": 3.0}, "overrides": ["lr=1e-1"]}
        >>> row = RunRow(Path("a"), "", "completed", record)
        >>> knob_value(row, "lr"), knob_value(row, "power"), knob_value(row, "rate")
        ('0.1', '3', None)
    """
    if _is_idle(row, key):
        return None
    value, typed = config_value(row, key), row.overrides.get(key)
    if typed is not None and not (isinstance(value, Mapping) and typed.lstrip().startswith("{")):
        return _typed(row, key, typed)
    if typed is None and key in row.choices:
        return value_text(row.choices[key])
    # Scalars at the root are aliases of pruning settings, which a dense run lacks.
    of_ours = row.is_dense and not row.is_of_another_app
    is_alias = of_ours and "." not in key and not isinstance(value, Mapping)
    if value is MISSING or (is_alias and value is not None):
        return None
    if isinstance(value, Mapping):
        return _node(key, value)
    return "none" if value is None and key == "schedule" else value_text(value)


def _is_idle(row: RunRow, key: str) -> bool:
    """Return whether a knob is of pruning, in the dense control of another app."""
    node, _, name = key.rpartition(".")
    is_of_pruning = node in PRUNING and name in row.knobs and name not in OF_DENSE
    return row.is_dense and row.is_of_another_app and is_of_pruning


# Where the knobs of pruning are in other apps, and those that a dense control has.
PRUNING = ("prune", "coreai_prune", "hydra.callbacks.prune")
OF_DENSE = ("schedule", "init_from", "monitor")

MISSING = object()


def config_value(row: RunRow, key: str) -> Any:
    """Return the config's value at a dotted key, ``MISSING`` without such a key."""
    value: Any = row.config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def value_text(value: Any) -> str:
    """Return a value as it is typed, numbers and truth values in one way.

    Example:
        >>> value_text([300, 100.0]), value_text({"b": None, "a": True}), value_text("1e-3")
        ('[300,100]', '{a:true,b:null}', '0.001')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        pairs = sorted((str(key), value_text(child)) for key, child in value.items())
        return "{" + ",".join(f"{key}:{text}" for key, text in pairs) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_text, value))}]"
    text = str(value)
    number = as_number(text)
    if number is None:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def as_number(text: str | None) -> float | None:
    """Return the number that a value is, None for any other text.

    Example:
        >>> as_number("1e2"), as_number("poly"), as_number("nan")
        (100.0, None, None)
    """
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _typed(row: RunRow, key: str, text: str) -> str:
    value = config_value(row, key)
    if "${" in text and value is not MISSING and not isinstance(value, Mapping):
        return value_text(value)  # what it refers to
    if text.lower() in TRUTH and _is_truth(row, key):
        return value_text(TRUTH[text.lower()])
    return _parsed(text)


def _is_truth(row: RunRow, key: str) -> bool:
    """Return whether a knob, or a key of that name in a node, is a truth value."""
    name = key.rpartition(".")[2]
    nodes = (mapping(node) for node in row.config.values())
    return isinstance(config_value(row, key), bool) or any(
        isinstance(node.get(name), bool) for node in nodes
    )


@lru_cache(maxsize=10_000)
def _parsed(text: str) -> str:
    plain = text.strip()
    if plain.replace("_", "").replace(".", "").replace("-", "").isalnum():
        word = plain.lower()
        return word if word in ("true", "false", "null") else value_text(plain)
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return text
    return text if override.is_sweep_override() else value_text(override.value())


def _node(key: str, node: Mapping[str, Any]) -> str | None:
    target = node.get("_target_")
    if target is None:
        return value_text(node) if "." in key else None
    name = str(target).rpartition(".")[2]
    fields = {key: value for key, value in node.items() if not key.startswith("_")}
    return name + value_text(fields) if "." in key and fields else name
