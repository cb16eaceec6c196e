"""Record of a run of any app: what is known when it begins, and what was told while it ran."""

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from coreai_opt.config.identity import flatten
from coreai_opt.plugin.experiment import AnyConfig
from coreai_opt.plugin.jobs.command import Command
from coreai_opt.runs.existing_run import read_json
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.run_record import Record
from coreai_opt.runs.values import RunValues
from coreai_opt.sweep.folder import SweepFolder


def new_record(
    paths: RunPaths,
    values: Mapping[str, Any],
    config: AnyConfig,
    command: Command,
    earlier: Mapping[str, Any] | None = None,
    seconds: float = 0.0,
    more: Mapping[str, Any] | None = None,
    warmup_key: str | None = None,
) -> Record:
    """Write the record of a run that begins.

    Args:
        paths: of the run.
        values: its config as it is resolved here.
        config: the same, as it is known whenever and wherever the run is made.
        command: that it was begun by.
        earlier: the record of an earlier attempt.
        seconds: wall time that was spent on it.
        more: further fields.
        warmup_key: of a warm-up run, None = it is none.
    """
    hydra = HydraConfig.get()
    content = read_json(SweepFolder(Path(hydra.sweep.dir)).file) or {}
    beside = {"hydra": config.values["hydra"]} if "hydra" in config.values else {}
    of_app = {
        "app": {"name": command.name, "program": command.program},
        "flags": list(command.flags),
        "seed": _seed_of(values),
        "values": {},
        "metrics_by_stage": {},
        "warning": None,
    }
    return Record(
        paths,
        {**values, **beside},
        [str(one) for one in hydra.overrides.task],
        earlier=earlier,
        seconds=seconds,
        sweep=content.get("name") if hydra.mode == RunMode.MULTIRUN else None,
        warmup_key=warmup_key,
        experiment=config.hash,
        more={**of_app, **(more or {})},
    )


def take(record: Record, values: RunValues, objective: Mapping[str, Any] | None = None) -> None:
    """Put into a record what was told of its run.

    Args:
        record: of the run.
        values: what was told.
        objective: what it is judged by, None where that is not known.
    """
    record.update(
        device=_device_here(),
        objective=objective,
        metrics=dict(values.metrics),
        metrics_by_stage=dict(values.by_stage),
        values=dict(values.values),
        warning="; ".join(values.warnings) or None,
    )
    record.update(**values.facts)  # a Trainer knows its device


def _device_here() -> dict[str, str]:
    """Return what this process computes on, as far as can be seen without importing anything."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return {"accelerator": "cuda", "name": torch.cuda.get_device_name()}
    return {"accelerator": "cpu", "name": platform.processor() or platform.machine()}


def _seed_of(values: Mapping[str, Any]) -> Any:
    """Return the seed of a run: the key of that name, the one nearest to the root."""
    flat = flatten(dict(values))
    seeds = [key for key in flat if key.rpartition(".")[2] == "seed"]
    seed = flat[min(seeds, key=lambda key: key.count("."))] if seeds else None
    return int(seed) if isinstance(seed, float) and seed.is_integer() else seed
