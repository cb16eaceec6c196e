"""Sweeps from Python: the command's sweep in the command's directory, and records as a table."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.cli.notebook import _value
from coreai_opt.sweep import load
from tests.conftest import Command
from tests.helpers.synthetic_records import make_sweep

pytest.importorskip("pandas", reason="needs the extra pandas")

VALUES: list[tuple[Any, str]] = [
    ("poly", "poly"),
    (["poly", "none"], "poly,none"),
    (range(3), "0,1,2"),
    ((0.1, 1), "0.1,1"),
    ([[100, 200], [300]], "[100,200],[300]"),
    ([None, True, False], "null,true,false"),
    (None, "null"),
    (Path("a/b.ckpt"), "a/b.ckpt"),
    (Path("a=b, c.pt"), "'a=b, c.pt'"),
    ("interval(1,4)", "interval(1,4)"),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=str)
def test_a_value_is_typed_as_on_the_command_line(value: Any, text: str) -> None:
    assert _value(value) == text


def test_records_are_a_table(tmp_path: Path) -> None:
    root = make_sweep(tmp_path / "power-seed-3f9a1c", runs=12)
    runs = load(root)
    assert len(runs) == 12
    assert {"folder", "sweep", "status", "seed", "config_hash", "sparsity", "error"} <= set(runs)
    done = runs[runs["status"] == "completed"]
    assert done["test/accuracy"].between(0, 1).all()
    assert (done["nonzero"] <= done["parameters"]).all()
    assert runs["folder"].map(lambda folder: Path(folder).is_dir()).all()
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        load(tmp_path / "nothing")


SCRIPT = """
from coreai_opt.config.errors import ConfigError
from coreai_opt.sweep import load, sweep

given = ["experiment=quick", "trainer.max_epochs=2", "total_iters=30"]
for _ in range(2):
    runs = sweep(*given, schedule=["poly", "none"], optimizer="sgd", power=2)
    assert list(runs["status"]) == ["completed"] * 2
    assert sorted(runs["schedule"]) == ["none", "poly"]
bad = sweep(*given, **{"optimizer.lr": [0.1, -1]})
assert sorted(bad["status"]) == ["completed", "failed"], bad
assert "optimizer.lr=-1" in bad.set_index("optimizer.lr")["error"][-1]
try:
    sweep("powr=1,2")
except ConfigError as error:
    print(error)
print(runs["sweep"][0])
"""


@pytest.mark.slow
def test_a_sweep_from_python_is_the_commands(command: Command, work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=work, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "powr=1: there is no key 'powr'" in done.stdout
    name = done.stdout.splitlines()[-1]
    given = ["experiment=quick", "trainer.max_epochs=2", "total_iters=30"]
    again = command("-m", *given, "schedule=poly,none", "optimizer=sgd", "power=2", timeout=180)
    assert f"sweep {name} in " in again.stdout
    assert ": 2 runs, 2 done before\n" in again.stdout
