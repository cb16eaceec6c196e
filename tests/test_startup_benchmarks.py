"""The benchmarks of start-up and sweeps measure what they say they do."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"bench_{name}")

    return load


def printed(table: Any, capsys: pytest.CaptureFixture[str]) -> str:
    Console(width=200).print(table)
    return capsys.readouterr().out


def test_processes_are_timed_and_shown_beside_what_they_must_take(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    startup = bench("startup")
    asleep = ("-c", "import time; time.sleep(0.3)")
    commands = [startup.COMMANDS[0], startup.Command("asleep", asleep, 0.6, 0.4)]
    at_rest, waiting = startup.measure(1, commands)
    assert waiting["wall_s"] > at_rest["wall_s"] + 0.2
    assert waiting["cpu_s"] < 0.2
    shown = printed(startup._table([at_rest, waiting], 1), capsys)
    assert "asleep" in shown
    assert "0.6 │ 0.4" in shown
    with pytest.raises(subprocess.CalledProcessError):
        startup.measure(1, [startup.Command("wrong", ("-c", "1 / 0"))])


def test_what_is_measured_of_the_start_can_be_run(bench: Any) -> None:
    startup = bench("startup")
    (help_text,) = [one for one in startup.COMMANDS if one.name == "--help"]
    (taken,) = startup.measure(1, [help_text])
    assert 0 < taken["fastest_s"] <= taken["wall_s"]


def test_time_is_counted_once_for_what_was_called_last(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = bench("sweep")
    place = ModuleType("a_place")
    place.inner = lambda: time.sleep(0.05)  # type: ignore[attr-defined]
    place.outer = lambda: (place.inner(), time.sleep(0.02))  # type: ignore[attr-defined]
    place.begin = SimpleNamespace(now=lambda: None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_place", place)
    timers = sweep.Timers()
    begun = sweep.LIGHT[sweep.RUN]
    timers.attach({"a_place:begin.now": begun, "a_place:inner": "in", "a_place:outer": "out"})
    for _ in range(2):
        place.begin.now()
        place.outer()
    timers.settle()
    assert [set(run) for run in timers.runs] == [{begun, "in", "out", sweep.BETWEEN}] * 2
    for run in timers.runs:
        assert 0.05 <= run["in"] < 0.3
        assert 0.02 <= run["out"] < run["in"]


@pytest.mark.slow
def test_a_sweep_is_taken_apart(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = bench("sweep")
    arguments = ["--runs", "3", "--repeat", "1", "--json", str(tmp_path / "sweep.json")]
    monkeypatch.setattr(sys, "argv", ["bench_sweep.py", *arguments])
    sweep.main()
    assert "beyond its fit" in capsys.readouterr().out
    report = json.loads((tmp_path / "sweep.json").read_text())
    seconds, parts = report["seconds"], report["parts"]
    assert seconds["fit"] < seconds["run"]
    assert seconds["first_run_more"] > 0
    # Medians of each, so not to the digit.
    assert sum(parts.values()) == pytest.approx(seconds["beyond_fit"], rel=0.3)
    asked_for_in_every_run = set(parts) - {
        "look for an earlier run",
        "versions, state of the checkout",
    }
    assert all(parts[name] > 0 for name in asked_for_in_every_run)
