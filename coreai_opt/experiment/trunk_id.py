"""Which runs share their dense warm-up: a hash of all that they do before they prune."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from coreai_opt.experiment.identity import flatten, is_ignored

__all__ = ["trunk_config", "trunk_id"]

# What cannot change a run before it prunes, nor what it has written until then.
IGNORED = [
    "checkpoint",
    "identity",
    "paths",
    "schedule",
    "*.schedule",
    "*.sparsity_schedule",
    "callbacks.progress_bar",
    "callbacks.scheduled_pruning.config",  # the node of pruning once more
    "trainer.enable_*",
]

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
    root = str((config.get("paths") or {}).get("run_dir"))
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


def _common(key: str, value: Any, root: str) -> Any:
    if key.endswith(".target_sparsity"):
        return value != 0  # a target of 0 prunes nothing, and has no mask
    # Where a run writes is its own.
    return value.replace(root, "RUN") if isinstance(value, str) else value
