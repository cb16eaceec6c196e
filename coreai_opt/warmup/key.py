"""Warm-up key: hash of all that a run does before its first mask, a function of its config alone.

Runs with one key train the same dense model first, and a sweep trains it once. Without torch.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import instantiate

from coreai_opt.config.hydra_internals import TRUSTED
from coreai_opt.config.identity import flatten, is_ignored
from coreai_opt.config.training_length import schedule_of
from coreai_opt.pruning.config.dense_reading import last_dense_reading
from coreai_opt.pruning.config.schedules import SparsityScheduleBase

# What cannot change a run before it prunes, nor what it has written until then.
IGNORED = [
    "checkpoint",
    "identity",
    "paths",
    "schedule",
    "sweep",
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


def warmup_key(config: Mapping[str, Any]) -> str | None:
    """Return 16 hexadecimal digits that are equal for runs with the same dense warm-up.

    None = the run shares none: it has no warm-up, or ``warmup=off``.

    Args:
        config: the resolved config.
    """
    former = config.get("trunk")  # the former name of the knob; YAML reads its off as false
    choice = config.get("warmup") if former is None else former
    end = warmup_end(config) if choice == "auto" else -1
    if end < 1:
        return None
    text = json.dumps([warmup_config(config), end], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def warmup_end(config: Mapping[str, Any]) -> int:
    """Return the last reading of the schedule's clock without a mask, in units of ``interval``.

    Below 1 = there is no warm-up. A schedule of the user's own is imported and asked.

    Example:
        >>> node = {"_target_": "coreai_opt.pruning.config.ConstantSparsitySchedule"}
        >>> pruning = {"schedule": {**node, "begin_step": 9}, "config": {}}
        >>> warmup_end({"callbacks": {"scheduled_pruning": pruning}})
        8
    """
    callback = (config.get("callbacks") or {}).get("scheduled_pruning") or {}
    if callback.get("masks_from", "schedule") != "schedule":
        return -1
    nodes = [callback.get("schedule"), *_own_schedules(callback.get("config"))]
    return min(map(_last_dense_reading, nodes))


def warmup_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resolved config says of a run before it prunes, by dotted key.

    How far weights are pruned is left out; that they are, and in what pattern, is not: it decides
    what a checkpoint holds.

    Example:
        >>> warmup_config({"pruning": {"weight": {"target_sparsity": 0.9}}, "seed": 3,
        ...                "schedule": {"power": 2}, "paths": {"run_dir": "a"}})
        {'pruning.weight.target_sparsity': True, 'seed': 3.0}
    """
    nodes = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    flat = flatten({**nodes, **{key: config[key] for key in SCALARS if key in config}})
    root = (config.get("paths") or {}).get("run_dir")
    return {
        key: _common(key, flat[key], root) for key in sorted(flat) if not is_ignored(key, IGNORED)
    }


def _last_dense_reading(node: Any) -> int:
    if not isinstance(node, Mapping):
        return -1
    # In the config of layers a schedule is a dict with its type.
    if "_target_" not in node:
        return last_dense_reading(SparsityScheduleBase.maybe_build_from_dict(dict(node)))
    if (known := schedule_of(node)) is not None:
        return last_dense_reading(known)
    try:
        return last_dense_reading(instantiate(dict(node), _convert_="all", **TRUSTED))
    except Exception:
        return -1  # the user's own code has failed: the job fails as well, and says why


def _own_schedules(node: Any) -> Iterator[Any]:
    """Yield the schedules that single layers have instead of the common one."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "sparsity_schedule" and value is not None:
                yield value
            else:
                yield from _own_schedules(value)


def _common(key: str, value: Any, root: str | None) -> Any:
    if key.endswith(".target_sparsity") and key.startswith(TARGETS):
        return value != 0  # a target of 0 prunes nothing, and has no mask
    if root and isinstance(value, str):
        # Where a run writes is its own. The directory of run 1 is no part of that of run 10.
        return re.sub(re.escape(root) + r"(?=/|$)", "RUN", value)
    return value
