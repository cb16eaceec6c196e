"""Which runs are the same experiment: a hash of what can change the result."""

import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any


def identity_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved config that can change the result, by dotted key.

    Numbers are floats, so that ``2`` and ``2.0`` are one value wherever they stand.
    Where the run writes is no part of what it is: ``paths.run_dir`` is taken out of paths below it.
    Scalars at the root are aliases of values in the nodes and are left out, but for ``seed`` and an
    ``init_from`` that is not null; so is what ``identity.ignore`` lists, as patterns over dotted
    keys.

    Example:
        >>> identity_config({"power": 2, "seed": 1, "schedule": {"power": 2.0}, "paths": {"a": 1},
        ...                  "identity": {"ignore": ["paths"]}})
        {'schedule.power': 2.0, 'seed': 1.0}
    """
    ignore = [*config.get("identity", {}).get("ignore", []), "identity"]
    nodes = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    # A dense control has no schedule, that is part of what it is; how far it would have been pruned
    # is not.
    if config.get("schedule") is None:
        ignore += ["pruning", "callbacks.scheduled_pruning"]
    own = {"seed": config.get("seed"), "schedule": config.get("schedule")}
    # Left out where it is null: the runs of before it existed keep their hash.
    if config.get("init_from") is not None:
        own["init_from"] = config["init_from"]
    flat = flatten({**nodes, **own})
    place = str((config.get("paths") or {}).get("run_dir") or "")
    kept = {key: flat[key] for key in sorted(flat) if not is_ignored(key, ignore)}
    return {key: _anywhere(value, place) for key, value in kept.items()}


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that are equal for configs of the same experiment."""
    text = json.dumps(identity_config(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested config by dotted key, whole numbers as floats."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: _as_floats(value)}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= flatten(child, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _anywhere(value: Any, place: str) -> Any:
    is_below = isinstance(value, str) and place and value.startswith(place)
    return f"RUN_DIR{value[len(place) :]}" if is_below else value


def _as_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    # Beyond that two whole numbers may be one float.
    return float(value) if is_whole and abs(value) <= 2**53 else value


def is_ignored(key: str, patterns: list[str]) -> bool:
    """Return whether a dotted key, or a node that it lies in, fits one of the patterns."""
    return _ignoring(tuple(patterns)).match(key) is not None


@cache
def _ignoring(patterns: tuple[str, ...]) -> re.Pattern[str]:
    both = (text for pattern in patterns for text in (pattern, f"{pattern}.*"))
    return re.compile("|".join(map(fnmatch.translate, both)) or r"(?!)")
