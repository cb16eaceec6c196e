"""Callbacks of a config: whether exactly one of them applies its schedule."""

from collections.abc import Mapping
from typing import Any

from coreai_opt.config.errors import Problem

# Of these projects, whatever module a class is imported from.
LIGHTNING = ("pytorch_lightning.", "lightning.")


def callback_problems(values: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with callbacks that prune: none, a second one, or zeros of a control.

    Args:
        values: the resolved config.

    Example:
        >>> node = {"_target_": "lightning_callbacks.ScheduledPruning", "schedule": {}}
        >>> for problem in callback_problems({"schedule": {}, "callbacks": {"a": node, "b": node}}):
        ...     print(problem)
        callbacks.b._target_=lightning_callbacks.ScheduledPruning: it would prune the model beside \
callbacks.a, and one of the two has to go; allowed: without callbacks.b, or schedule=none
    """
    nodes = values.get("callbacks") or {}
    known = {key: node for key, node in nodes.items() if isinstance(node, Mapping)}
    applying = [key for key, node in known.items() if "schedule" in node]
    if values.get("schedule") is not None and not applying:
        sentence = "the schedule would not be applied: no callback takes it; allowed: "
        return [Problem("schedule", f"{sentence}callbacks=[default,...], or schedule=none")]
    first = next((key for key in applying if known[key]["schedule"] is not None), None)
    if first is None:
        keys = [key for key in applying if known[key].get("masks_from") == "zeros"]
        return [_zeros_of_a_control(key) for key in keys]
    others = {key: node for key, node in known.items() if key != first and _prunes(node)}
    return [_second(first, f"callbacks.{key}", node["_target_"]) for key, node in others.items()]


def _prunes(node: Mapping[str, Any]) -> bool:
    target = str(node.get("_target_", ""))
    module, _, name = target.rpartition(".")
    if name == "ModelPruning":
        return f"{module}.".startswith(LIGHTNING)
    # With schedule: null it is not made.
    return name == "ScheduledPruning" and node.get("schedule", "its own") is not None


def _zeros_of_a_control(key: str) -> Problem:
    name = f"callbacks.{key}.masks_from"
    return Problem(
        name,
        f"{name}=zeros: schedule=none is the dense control, in which zeros grow back; allowed: "
        "schedule=constant, which keeps the zeros that are there and goes to target_sparsity at "
        "once, or another schedule",
    )


def _second(first: str, name: str, target: object) -> Problem:
    return Problem(
        f"{name}._target_",
        f"{name}._target_={target}: it would prune the model beside callbacks.{first}, and one of "
        f"the two has to go; allowed: without {name}, or schedule=none",
    )
