"""Runs that are stopped and gone on with, and everything that they leave, to be compared."""

import json
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch

from coreai_opt.training.run import run

STOP = "+callbacks.stop._target_=tests.helpers.stopping.Stop"

# What differs between two runs of one experiment, whether one was stopped or not; and the state of
# the checkout, which a developer may change while the tests run.
TIMES = ("run_id", "started", "finished", "wall_seconds", "attempts", "resumed_at", "git")

RunOnce = Callable[[], None]


class Stop(pl.Callback):
    """Sends this process a signal when as many batches are done as the first number of ``at``."""

    at: ClassVar[list[int]] = []
    number: ClassVar[signal.Signals] = signal.SIGTERM

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if Stop.at and done == Stop.at[0]:
            del Stop.at[0]
            os.kill(os.getpid(), Stop.number)


def run_until_done(once: RunOnce, stops: Iterable[int]) -> None:
    """Run, stop after each of some batches, and go on until the run has completed."""
    Stop.at = list(stops)
    while Stop.at:
        left = len(Stop.at)
        with pytest.raises(SystemExit) as ended:
            once()
        assert ended.value.code == 128 + Stop.number
        assert len(Stop.at) == left - 1
    once()


def run_in(compose_config: Any, directory: Path, *overrides: str) -> None:
    """Run in this process."""
    run(compose_config(*overrides, STOP, run_dir=directory))


def record_of(directory: Path) -> dict[str, Any]:
    """Return what ``result.json`` says."""
    record: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return record


def left_by(directory: Path) -> dict[str, Any]:
    """Return all that a run has left, but for times and its own path; equal where bits are."""
    record = record_of(directory)
    assert record["status"] == "completed"
    left: dict[str, Any] = {
        f"record {key}": value for key, value in record.items() if key not in TIMES
    }
    for name in ("metrics.csv", "sparsity.csv"):
        left[name] = (directory / name).read_text().splitlines()
    files = sorted(directory.glob("checkpoints/*.ckpt"))
    for path in (directory / "weights.pt", *files):
        content = torch.load(path, weights_only=False)
        left |= _flat(path.name, content)
    assert not (directory / "resume").exists()
    root = str(directory)
    return {key.replace(root, "RUN"): _comparable(value, root) for key, value in left.items()}


def assert_same(resumed: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Fail with the names of what differs between two results of ``left_by``."""
    names = resumed.keys() | whole.keys()
    different = [
        f"{name}: {str(whole.get(name))[:200]} -> {str(resumed.get(name))[:200]}"
        for name in sorted(names)
        if resumed.get(name, "(none)") != whole.get(name, "(none)")
    ]
    if different:
        pytest.fail("\n".join(different))


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(f"{prefix} {key}", child)
    return flat


def _comparable(value: Any, root: str) -> Any:
    if isinstance(value, torch.Tensor):
        bits = value.detach().reshape(-1).contiguous().view(torch.uint8)
        return str(value.dtype), tuple(value.shape), bytes(bits.tolist())
    if isinstance(value, Mapping):
        return {str(key): _comparable(child, root) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(child, root) for child in value]
    return value.replace(root, "RUN") if isinstance(value, str) else value
