"""Trainer node: how many processes it asks for, and strategies that are refused."""

from collections.abc import Mapping
from typing import Any

from coreai_opt.config.errors import Problem

# Strategies that copy this process, or let its threads work, and run no command again.
WITHOUT_COMMAND = ("spawn", "fork", "notebook")

SHARDING = ("fsdp", "deepspeed", "model_parallel", "modelparallel")


def processes_of(trainer: Mapping[str, Any]) -> int | None:
    """Return how many processes a trainer needs that are started by running the command again.

    Args:
        trainer: the resolved node of the config.

    Returns:
        Their number, over all machines; None = only the machine of the run can tell.

    Example:
        >>> processes_of({"devices": [0, 3], "strategy": "ddp", "num_nodes": 2})
        4
        >>> processes_of({"devices": 2, "strategy": "ddp_spawn"})
        1
        >>> processes_of({"devices": "auto"}) is None
        True
    """
    strategy, devices = trainer.get("strategy", "auto"), trainer.get("devices", 1)
    if isinstance(strategy, str) and any(word in strategy for word in WITHOUT_COMMAND):
        return 1
    nodes = int(trainer.get("num_nodes") or 1)
    if isinstance(devices, str) and "," in devices:
        devices = [name for name in devices.split(",") if name.strip()]
    if isinstance(devices, list | tuple):
        return len(devices) * nodes
    text = str(devices).strip()
    return int(text) * nodes if text.isdecimal() else None


def strategy_problems(trainer: Any, name: str = "trainer.strategy") -> list[Problem]:
    """Return why a strategy is refused that shards weights, or trains in copies of this process.

    Example:
        >>> print(*strategy_problems({"strategy": "fsdp"}))
        trainer.strategy=fsdp: it shards the weights, and a mask needs the whole tensor; allowed: \
auto, or ddp for several devices
        >>> print(*strategy_problems({"strategy": "ddp_spawn"}))
        trainer.strategy=ddp_spawn: it trains in processes that it spawns or forks, and the record \
is made in this one; allowed: auto, or ddp for several devices
    """
    strategy = trainer.get("strategy") if isinstance(trainer, Mapping) else None
    node = strategy if isinstance(strategy, Mapping) else {"_target_": strategy}
    target, start = str(node.get("_target_")), str(node.get("start_method", ""))
    starts = start if isinstance(strategy, Mapping) else target
    if any(word in target.lower() for word in SHARDING):
        reason = "it shards the weights, and a mask needs the whole tensor"
    elif any(word in starts for word in WITHOUT_COMMAND):
        target += f" with start_method={start}" if start else ""
        # The module gets its weights back; curves, masks and the step stay with the processes.
        reason = (
            "it trains in processes that it spawns or forks, and the record is made in this one"
        )
    else:
        return []
    sentence = f"{name}={target}: {reason}; allowed: auto, or ddp for several devices"
    return [Problem(name, sentence)]
