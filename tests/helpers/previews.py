"""What tests of the preview share: plans, records written by hand, and runs as they are shown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from coreai_opt.config.composing import command_context
from coreai_opt.config.hydra_internals import get_args_parser
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.runs.run_record import code_and_versions
from coreai_opt.sweep.plan import Plan, Planner, Point
from coreai_opt.sweep.plugins import take_names
from coreai_opt.sweep.preview.planned import PlannedRun, Standing
from coreai_opt.sweep.preview.ramps import Ramp, TrainingLength

LENGTH = TrainingLength(steps=550, per_epoch=55, epochs=10)


def plan_of(*overrides: str) -> Plan:
    """Return the plan of a sweep that is typed in the current directory."""
    register_nodes()
    take_names()
    with command_context(get_args_parser().parse_args([])) as name:
        return Planner(GlobalHydra.instance().config_loader(), name, overrides).plan()


def write_record(folder: Path, config: Mapping[str, Any], digest: str, **fields: Any) -> None:
    """Write the record of a run that was made with the code as it is, in the current directory."""
    training = {"epochs": 10, "steps": 550, "steps_per_epoch": 55}
    record = {
        "status": "completed",
        "config": dict(config),
        "config_hash": digest,
        "wall_seconds": 60.0,
        "training": training,
        "warmup": None,
        **code_and_versions(),
        **fields,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(record), encoding="utf-8")


def write_checkpoint_name(folder: Path, step: int) -> None:
    """Write a file that is named as a checkpoint; nothing of it is read by a preview."""
    (folder / "resume").mkdir(parents=True, exist_ok=True)
    (folder / "resume" / f"step-{step:08d}-{'0' * 16}.ckpt").write_bytes(b"")


def ramp(
    length: TrainingLength = LENGTH, interval: str = "step", target: float = 0.9, **fields: Any
) -> Ramp:
    """Return a polynomial ramp in a training of 10 epochs of 55 steps."""
    values: dict[str, Any] = {"total_iters": 400, "power": 1.0, **fields}
    return Ramp(PolynomialDecaySchedule(**values), interval, target, length)


def run(
    varied: Mapping[str, str],
    seed: int = 1,
    standing: Standing | None = None,
    seconds: float | None = None,
    **fields: Any,
) -> PlannedRun:
    """Return a run as it is shown; without a power among what is varied it is dense."""
    config = {"seed": seed, "varied": dict(varied)}
    its: Any = ramp(power=float(varied["power"]), **fields) if "power" in varied else "none"
    point = Point((), {**varied, "seed": str(seed)}, (), config)
    target = its.target if isinstance(its, Ramp) else 0.0
    return PlannedRun(point, standing or Standing("new"), LENGTH, its, target, seconds)
