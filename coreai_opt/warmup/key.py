"""Which runs share their dense warm-up: a hash of all that they do before they prune."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from coreai_opt.config.identity import flatten, is_ignored

__all__ = ["trunk_config", "trunk_id"]

# What cannot change a run before it prunes, nor what it has written until then.
IGNORED = [
    "checkpoint",
    "identity",
    "paths",
    "schedule",
    "pruning.*.sparsity_schedule",
    "callbacks.progress_bar",
    "callbacks.scheduled_pruning.schedule",
    "callbacks.scheduled_pruning.config.*.sparsity_schedule",
    "trainer.enable_*",
]

# Where a target is that of pruning; a model of the user's own may have one as well.
TARGETS = ("pruning.", "callbacks.scheduled_pruning.")

# At the root, where all else repeats what stands in the nodes.
SCALARS = ("seed", "init_from")


def trunk_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resolved config says of a run before it prunes, by dotted key.

    How far weights are pruned is left out; that they are, and in what pattern, is not: it decides
    what a checkpoint holds.

    Example:
        >>> trunk_config({"pruning": {"weight": {"target_sparsity": 0.9}}, "seed": 3,
        ...               "schedule": {"power": 2}, "paths": {"run_dir": "a"}})
        {'pruning.weight.target_sparsity': True, 'seed': 3.0}
    """
    nodes = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    flat = flatten({**nodes, **{key: config[key] for key in SCALARS if key in config}})
    root = (config.get("paths") or {}).get("run_dir")
    return {
        key: _common(key, flat[key], root) for key in sorted(flat) if not is_ignored(key, IGNORED)
    }


def trunk_id(config: Mapping[str, Any], until: int, circumstances: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that are equal for runs with the same dense warm-up.

    Args:
        config: the resolved config.
        until: the reading of the schedule's clock at which the warm-up ends.
        circumstances: on what is computed: code, versions, device, threads.
    """
    content = [trunk_config(config), until, dict(circumstances)]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _common(key: str, value: Any, root: str | None) -> Any:
    if key.endswith(".target_sparsity") and key.startswith(TARGETS):
        return value != 0  # a target of 0 prunes nothing, and has no mask
    if root and isinstance(value, str):
        # Where a run writes is its own. The directory of run 1 is no part of that of run 10.
        return re.sub(re.escape(root) + r"(?=/|$)", "RUN", value)
    return value
