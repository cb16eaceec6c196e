"""Records as runs write them, without running anything."""

import hashlib
import json
import os
import random
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from coreai_opt.config.identity import config_hash

__all__ = [
    "HOSTILE",
    "SHAPES",
    "any_record",
    "config_of",
    "hostile_sweep",
    "make_record",
    "make_sweep",
    "write_run",
    "write_sweep_file",
]

SHAPES = {
    "network.layers.1.weight": (300, 784),
    "network.layers.3.weight": (100, 300),
    "network.layers.5.weight": (10, 100),
}
BIASES = 410
HOSTILE = (
    """</script><script>document.title='pwned'</script><img src=x onerror=alert(1)>"'&%{x}$a$=é"""
)
IGNORED = ["paths", "checkpoint", "logger", "callbacks.best_checkpoint"]
CLASSES = {"poly": "Polynomial", "cosine": "Cosine", "exponential": "Exponential"}


def config_of(
    schedule: str | None = "poly", target: float = 0.9, seed: int = 1, **knobs: Any
) -> Any:
    """Return a resolved config as a record holds it, of the size that one has."""
    node: dict[str, Any] | None = None
    if schedule is not None:
        fields = {"total_iters": 400, "begin_step": 0, "initial_sparsity": 0.0, **knobs}
        kind = f"{CLASSES[schedule]}{'Decay' if schedule == 'poly' else 'Sparsity'}Schedule"
        node = {"_target_": f"coreai_opt.pruning.config.{kind}", "update_frequency": 1, **fields}
    spec = {"target_sparsity": target, "pruning_scheme": {"type": "unstructured"}}
    pruning = {
        "_target_": "coreai_opt.pruning.MagnitudePrunerConfig",
        "global_config": {"op_state_spec": {"weight": spec, "in_proj_weight": spec}},
        "allocation": "uniform",
    }
    return {
        "paths": {"output_root": "outputs", "run_dir": "/somewhere/0", "data": "data"},
        "data": {
            "_target_": "coreai_opt.data.MNISTSubset",
            "batch_size": 32,
            "num_train": 4000,
            "num_val": 500,
            "input_shape": [1, 28, 28],
            "num_classes": 10,
        },
        "model": {"_target_": "coreai_opt.models.MLP", "hidden": [300, 100]},
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
        "trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": 8, "devices": 1},
        "callbacks": {
            "scheduled_pruning": {"schedule": node, "config": pruning, "interval": "step"},
            "best_checkpoint": {"dirpath": "/somewhere/0/checkpoints", "monitor": "val/accuracy"},
        },
        "logger": {"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger"}},
        "pruning": pruning,
        "interval": "step",
        "target_sparsity": target,
        "schedule": node,
        **(knobs if schedule else {}),
        "seed": seed,
        "init_from": None,
        "objective": {"name": "val/accuracy", "mode": "max"},
        "identity": {"ignore": IGNORED},
    }


def make_record(
    accuracy: float | None = 0.9,
    schedule: str | None = "poly",
    target: float = 0.9,
    seed: int = 1,
    status: str = "completed",
    overrides: list[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """Return the record of a run.

    Args:
        accuracy: on test; on validation it is 0.01 less.
        schedule: ``poly``, ``cosine`` or ``exponential``; None = a dense control.
        target: the sparsity, which is reached up to a rounding.
        seed: the seed.
        status: what it was when the record was written.
        overrides: default: those that set the other arguments.
        changes: fields that replace those of the record.
        knobs: of the schedule.
    """
    config = config_of(schedule, target, seed, **knobs)
    told = [f"{key}={value}" for key, value in {"schedule": schedule or "none", **knobs}.items()]
    told += [f"target_sparsity={target}"] if schedule else []
    record: dict[str, Any] = {
        "schema": 1,
        "run_id": f"20261122T101500-{seed}",
        "sweep": None,
        "status": status,
        "started": "2026-11-22T10:15:00.000+00:00",
        "finished": "2026-11-22T10:15:09.500+00:00",
        "wall_seconds": 9.5,
        "attempts": 1,
        "resumed_at": [],
        "overrides": [*told, f"seed={seed}"] if overrides is None else overrides,
        "config": config,
        "config_hash": config_hash(config),
        "seed": seed,
        "git": {"sha": "3f9a1c7e" * 5, "dirty": False, "changes": None},
        "versions": {"python": "3.12.1", "torch": "2.9.0", "coreai_opt": "0.1.0"},
        "threads": 2,
        "device": {"accelerator": "cpu", "name": "Some Processor"},
        "training": {"epochs": 8, "steps": 1000, "steps_per_epoch": 125},
        **dict.fromkeys(("objective", "sparsity", "parameters", "operations", "checkpoints")),
        **{"metrics": {}, "warmup": None, "error": None},
    }
    if status == "completed" and accuracy is not None:
        record |= _results(accuracy, target if schedule else 0.0)
    if status == "failed":
        record["error"] = {
            "type": "RuntimeError",
            "message": "it broke\nin two lines",
            "traceback": "Traceback (most recent call last):\nRuntimeError: it broke\n",
        }
    return {**record, **(changes or {})}


def any_record(
    overrides: Sequence[str],
    metrics: Mapping[str, float] | None = None,
    objective: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return the record of a completed run of another app, without pruning.

    Args:
        overrides: ``key=value`` each; they are its whole config, the seed among them.
        metrics: default: none.
        objective: as in a record.
        changes: fields that replace those of the record.
    """
    config: dict[str, Any] = {"interpolation": "${nowhere}", "nothing": None}
    for override in overrides:
        key, _, text = override.partition("=")
        node = config
        *above, last = key.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = yaml.safe_load(text)
    return {
        "schema": 1,
        "app": {"name": "their_app", "program": "python their_app.py"},
        "status": "completed",
        "started": "2026-11-22T10:15:00.000+00:00",
        "wall_seconds": 2.5,
        "attempts": 1,
        "overrides": list(overrides),
        "config": config,
        "config_hash": hashlib.sha256(json.dumps(config).encode()).hexdigest()[:16],
        "seed": config.get("seed"),
        "git": None,
        "versions": {"python": "3.12.1"},
        **{"choices": {}, "metrics": dict(metrics or {}), "objective": objective},
        **dict.fromkeys(("sparsity", "parameters", "operations", "training", "checkpoints")),
        **dict.fromkeys(("device", "error", "warmup", "sweep")),
        **changes,
    }


def _results(accuracy: float, target: float) -> dict[str, Any]:
    layers = []
    for name, shape in SHAPES.items():
        elements = shape[0] * shape[1]
        left = elements - round(elements * target)
        layers.append(
            {
                "name": name,
                "shape": list(shape),
                "elements": elements,
                "nonzero": left,
                "target": target if target else None,
            }
        )
    elements, left = (sum(layer[key] for layer in layers) for key in ("elements", "nonzero"))
    metrics = {"val/accuracy": accuracy - 0.01, "val/loss": 1 - accuracy}
    return {
        "objective": {"name": "val/accuracy", "mode": "max", "value": accuracy - 0.01},
        "metrics": {"test/accuracy": accuracy, **metrics, "last/val/accuracy": accuracy - 0.02},
        "sparsity": {"target": target, "achieved": 1 - left / elements, "layers": layers},
        "parameters": {"total": elements + BIASES, "nonzero": left + BIASES},
        "operations": {"dense": 2 * elements, "effective": 2 * left},
        "checkpoints": {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"},
    }


def write_run(folder: Path, record: Any, is_alive: bool = False) -> Path:
    """Write a run directory; one that is alive has a heartbeat of this moment."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    # Process 1 is always there; this one would be taken for the reader itself.
    pid = 1 if is_alive else os.getpid()
    when = time.time() if is_alive else 0.0
    progress = {"step": 300, "total_steps": 1000, "pid": pid, "time": when, "wall_seconds": 3.0}
    content = json.dumps({**progress, "host": socket.gethostname()})
    (folder / "progress.json").write_text(content, encoding="utf-8")
    return folder


def write_sweep_file(root: Path, points: Mapping[str, Any], knobs: list[str]) -> None:
    """Write ``sweep.json``."""
    root.mkdir(parents=True, exist_ok=True)
    commands = [["schedule=poly", "power=1,2"]]
    told = {"schema": 1, "name": root.name, "knobs": knobs, "commands": commands, "points": points}
    (root / "sweep.json").write_text(json.dumps(told), encoding="utf-8")


def make_sweep(root: Path, runs: int = 33, seeds: int = 3) -> Path:
    """Write a sweep over power, total_iters and target sparsity, dense control included.

    The better the longer the ramp, the worse the sparser, with a spread over seeds that a fixed
    generator draws.
    """
    draw = random.Random(0)
    points: list[dict[str, Any]] = [{"schedule": None}]
    targets = (0.5, 0.75, 0.875, 0.9375, 0.96875)
    lengths = range(100, 100_000, 100)
    points += [
        {"power": power, "total_iters": length, "target": target}
        for length in lengths[: max(1, runs // (seeds * 15) + 1)]
        for target in targets
        for power in (1, 2, 3)
    ]
    written: dict[str, Any] = {}
    for number in range(runs):
        point, seed = points[number // seeds], number % seeds + 1
        target = point.get("target", 0.0)
        accuracy = 0.95 - 0.1 * target**8 + point.get("total_iters", 0) * 1e-7
        record = make_record(round(accuracy + draw.gauss(0, 0.003), 5), seed=seed, **point)
        folder = f"{number:04d}_{record['config_hash'][:8]}"
        written[record["config_hash"]] = {"folder": folder, "overrides": record["overrides"]}
        write_run(root / folder, record)
    write_sweep_file(root, written, ["power", "total_iters"])
    return root


def hostile_sweep(root: Path) -> Path:
    """A sweep in which whatever can have a name has a hostile one."""
    name = HOSTILE.replace("/", "")
    for number in range(4):
        overrides = [f"{HOSTILE}={HOSTILE}{number % 2}", f"power={number // 2}"]
        record = make_record(0.5 + number / 8, overrides=overrides, seed=number)
        record["metrics"][HOSTILE] = 0.5
        record["objective"]["name"] = HOSTILE
        record["sparsity"]["layers"][0]["name"] = HOSTILE
        record["versions"][HOSTILE] = HOSTILE + str(number)
        record["device"]["name"] = HOSTILE
        write_run(root / f"{number} {name}", record)
    error = {"type": HOSTILE, "message": HOSTILE, "traceback": f"a\n{HOSTILE}"}
    write_run(root / "x", make_record(status="failed", changes={"error": error}, seed=8))
    (root / name).mkdir()
    (root / name / "result.json").write_text("{")
    point = {"folder": HOSTILE, "overrides": [f"{HOSTILE}={HOSTILE}"]}
    write_sweep_file(root, {"0" * 16: point}, [HOSTILE])
    told = json.loads((root / "sweep.json").read_text())
    (root / "sweep.json").write_text(json.dumps({**told, "name": HOSTILE}))
    return root
