"""What two run directories differ in, but for times and for where they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests.helpers.processes import record_in

# How a run came about is its own; what came out of it is not. The hash may be one of its paths.
OWN = (
    "run_id",
    "started",
    "finished",
    "wall_seconds",
    "attempts",
    "resumed_at",
    "overrides",
    "config_hash",
)
SETTINGS = ("paths", "trunk", "warmup", "resume", "checkpoint")
TRAINING = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
EVENTS = "events.out.tfevents."
NOTES = (".lock", ".warmup.json")  # what processes of one launch say to each other


def differences(one: Path, other: Path) -> list[str]:
    """Return in what two runs differ: record, files, curves, weights, state of the training."""
    found = [
        f"result.json: {key}" for key, value in _record(one).items() if value != _record(other)[key]
    ]
    if _files(one) != _files(other):
        found.append(f"files: {sorted(_files(one) ^ _files(other))}")
    for name in sorted(_files(one) & _files(other)):
        found += [f"{name}: {what}" for what in _in_file(one, other, name)]
    return found if _scalars(one) == _scalars(other) else [*found, "TensorBoard"]


def _in_file(one: Path, other: Path, name: str) -> list[str]:
    first, second = one / name, other / name
    if name.endswith(".csv"):
        return [] if first.read_bytes() == second.read_bytes() else ["text"]
    if name == "weights.pt":
        return [] if _same(*(torch.load(file) for file in (first, second))) else ["weights"]
    if not name.endswith(".ckpt"):
        return []
    saved, expected = (torch.load(file, weights_only=False) for file in (first, second))
    keys = [key for key in TRAINING if not _same(saved[key], expected[key])]
    states = [_callbacks(state["callbacks"], at) for state, at in ((saved, one), (expected, other))]
    return keys if _same(*states) else [*keys, "callbacks"]


def record_of(directory: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return record


def _record(directory: Path) -> dict[str, Any]:
    record = record_of(directory)
    root = record["config"]["paths"]["run_dir"]
    kept = {key: value for key, value in record.items() if key not in (*OWN, "warmup")}
    kept["config"] = {key: kept["config"][key] for key in kept["config"] if key not in SETTINGS}
    replaced: dict[str, Any] = json.loads(json.dumps(kept, ensure_ascii=False).replace(root, "RUN"))
    return replaced


def _files(directory: Path) -> set[str]:
    files = (path for path in directory.rglob("*") if path.is_file() and path.name not in NOTES)
    return {str(path.relative_to(directory)) for path in files if EVENTS not in path.name}


def _callbacks(states: Mapping[str, Any], root: Path) -> dict[str, Any]:
    return {key: _without(value, str(root)) for key, value in states.items()}


def _without(value: Any, root: str) -> Any:
    if isinstance(value, str):
        return value.replace(root, "RUN")
    if isinstance(value, dict):
        return {_without(key, root): _without(item, root) for key, item in value.items()}
    return value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        same_keys = one.keys() == other.keys()
        return same_keys and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        same_length = len(one) == len(other)
        return same_length and all(_same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def _scalars(directory: Path) -> dict[str, Any] | None:
    """Return TensorBoard's curves, by step: a run may take over some points after later ones."""
    folder = directory / "tensorboard"
    if not folder.exists():
        return None
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: sorted((one.step, one.value) for one in events.Scalars(tag)) for tag in tags}


TIMES = ("run_id", "started", "finished", "wall_seconds", "attempts", "resumed_at", "git")


def comparable(root: Path) -> dict[str, Any]:
    record = {key: value for key, value in record_in(root).items() if key not in TIMES}
    text = json.dumps(record, ensure_ascii=False).replace(str(root), "RUN")
    weights = torch.load(root / "weights.pt", weights_only=True)
    curves = {name: (root / name).read_text() for name in ("metrics.csv", "sparsity.csv")}
    return {
        "record": text,
        "weights": {key: value.tolist() for key, value in weights.items()},
        **curves,
    }
