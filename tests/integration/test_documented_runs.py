"""The README's commands, run as they stand, and its scripts from a fresh clone."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_first_command_reaches_its_sparsity(command: Command, work: Path) -> None:
    done = command("schedule=poly", "power=2")
    assert done.returncode == 0, done.stderr
    (path,) = work.glob("outputs/*/*/result.json")
    record = json.loads(path.read_text())
    assert abs(record["sparsity"]["achieved"] - 0.9) < 1e-3
    assert record["metrics"]["test/accuracy"] > 0.9


def test_the_sweep_of_six_runs(command: Command, work: Path) -> None:
    swept = ["power=1,2,3", "total_iters=200,400", "trainer.max_epochs=8"]
    done = command("-m", "schedule=poly", *swept, timeout=600)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in work.glob("multirun/*/*/result.json")]
    points = {(one["config"]["power"], one["config"]["total_iters"]) for one in records}
    assert points == {(power, iters) for power in (1, 2, 3) for iters in (200, 400)}
    assert {one["status"] for one in records} == {"completed"}
    assert len({one["config_hash"] for one in records}) == 6


def test_a_dense_run_is_pruned_from_its_weights(command: Command, work: Path) -> None:
    dense = command("schedule=none", "hydra.run.dir=outputs/dense")
    assert dense.returncode == 0, dense.stderr
    done = command("schedule=poly", "init_from=outputs/dense/weights.pt", "hydra.run.dir=pruned")
    assert done.returncode == 0, done.stderr
    record = json.loads((work / "pruned" / "result.json").read_text())
    assert abs(record["sparsity"]["achieved"] - 0.9) < 1e-3
    assert record["training"]["steps"] == 550
    assert record["metrics"]["test/accuracy"] > 0.9


def test_scripts_train_needs_no_other_step_and_does_nothing_twice(tmp_path: Path) -> None:
    clone = tmp_path / "a clone's folder"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}

    def script(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(clone / "scripts" / "train"), *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800,
        )  # fmt: skip

    first = script("experiment=quick")
    assert first.returncode == 0, first.stderr
    assert "installing into" in first.stderr
    assert "sparsity 90.00 %" in first.stdout
    stamp = clone / ".venv" / ".stamp-demo"
    written = stamp.stat().st_mtime_ns
    second = script("--help")
    assert "installing" not in second.stderr
    assert "Groups and their options" in second.stdout
    assert stamp.stat().st_mtime_ns == written
    constraints = clone / "constraints.txt"
    constraints.write_text(constraints.read_text() + "# changed\n")
    assert "installing into" in script("--help").stderr
