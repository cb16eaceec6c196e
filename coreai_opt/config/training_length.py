"""How long a training is, as far as its config tells, and whether the ramp ends inside it."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from pydantic import ValidationError

from coreai_opt.config.errors import Problem
from coreai_opt.config.schemas.nodes import model_of_target
from coreai_opt.config.schemas.settings import ImageDataSettings
from coreai_opt.pruning.config.schedules import MultiStepSparsitySchedule, SparsityScheduleBase

# Callbacks of Lightning's that change how many steps an epoch has.
CHANGE_STEPS = (".BatchSizeFinder", ".GradientAccumulationScheduler")

UNITS = {"step": "steps", "epoch": "epochs", "percent": "percent"}


def planned_steps(config: Mapping[str, Any]) -> int | None:
    """Return the optimizer steps of the training, None where the config does not tell.

    It is known for the data configs that come with the project (``data.num_train``); a DataModule
    of the user's own is measured when it is there.
    """
    per_epoch, trainer = steps_per_epoch(config), config.get("trainer") or {}
    if per_epoch is None:
        return None
    epochs: int = trainer.get("max_epochs", -1)
    limits: list[int] = [epochs * per_epoch] if epochs != -1 else []
    if (max_steps := trainer.get("max_steps", -1)) != -1:
        limits.append(max_steps)
    return min(limits, default=None)


def steps_per_epoch(config: Mapping[str, Any]) -> int | None:
    """Return the optimizer steps of an epoch, None where the config does not tell."""
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    devices = trainer.get("devices")
    unusual = any(trainer.get(key) for key in ("fast_dev_run", "overfit_batches", "max_time"))
    callbacks = (config.get("callbacks") or {}).values()
    targets = [str(node.get("_target_")) for node in callbacks if isinstance(node, Mapping)]
    unusual = unusual or any(target.endswith(CHANGE_STEPS) for target in targets)
    # A class of the user's own in place of ours leaves our numbers standing in the config.
    settings = model_of_target(str(data.get("_target_")))
    ours = settings is not None and issubclass(settings, ImageDataSettings)
    if not ours or not isinstance(devices, int) or devices < 1 or unusual:
        return None
    share = ceil(data["num_train"] / (devices * trainer.get("num_nodes", 1)))
    batches = _limited(ceil(share / data["batch_size"]), trainer.get("limit_train_batches"))
    per_step: int = trainer.get("accumulate_grad_batches", 1)
    return ceil(batches / per_step)


def ramp_problem(schedule: SparsityScheduleBase | None, config: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with a ramp that cannot end inside the training, with both numbers."""
    callback = (config.get("callbacks") or {}).get("scheduled_pruning")
    if schedule is None or schedule.end_step is None or not callback:
        return []
    interval = callback.get("interval", "step")
    total = planned_length(config, interval)
    if total is None or schedule.end_step <= total:
        return []
    unit = UNITS[interval]
    longer = "" if interval == "percent" else ", or a longer training (trainer.max_epochs)"
    if isinstance(schedule, MultiStepSparsitySchedule):
        milestones = f"milestones={list(schedule.milestones)}"
        reached = f"the target is reached at milestone {schedule.end_step}"
        allowed = f"allowed: a last milestone <= {total}{longer}"
        sentence = f"{milestones}: {reached} and the training has {total} {unit}; {allowed}"
        return [Problem("milestones", sentence)]
    begin = getattr(schedule, "begin_step", 0)
    knob, value = "begin_step", begin
    largest = f"begin_step <= {total}"
    if hasattr(schedule, "total_iters"):
        knob, value = "total_iters", schedule.total_iters
        largest = f"begin_step + total_iters <= {total}"
    return [
        Problem(
            knob,
            f"{knob}={value}: the ramp ends after {schedule.end_step} {unit} (it begins at "
            f"{begin}) and the training has {total}; allowed: {largest}{longer}",
        )
    ]


def planned_length(config: Mapping[str, Any], interval: str) -> int | None:
    """Return the length as a schedule counts it, in ``step``, ``epoch`` or ``percent``."""
    if interval == "percent":
        return 100
    if interval == "step":
        return planned_steps(config)
    epochs: int = (config.get("trainer") or {}).get("max_epochs", -1)
    return epochs if epochs != -1 else None


def schedule_of(node: Any) -> SparsityScheduleBase | None:
    """Return the schedule of a config's node, None where there is none or its class is not ours.

    Example:
        >>> schedule_of({"_target_": "coreai_opt.pruning.config.ConstantSparsitySchedule"})
        ConstantSparsitySchedule(begin_step=0)
    """
    if not isinstance(node, Mapping):
        return None
    name = str(node.get("_target_", "")).rpartition(".")[2]
    fields = {key: value for key, value in node.items() if not key.startswith("_")}
    for key in SparsityScheduleBase.list_registry_keys():
        cls = SparsityScheduleBase.get_class(key)
        if cls.__name__ == name:
            try:
                return cls(**fields)
            except ValidationError:
                return None  # said already, when the node was checked
    return None


def _limited(batches: int, limit: Any) -> int:
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)
