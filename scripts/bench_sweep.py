"""Measures what a small run of a sweep costs beyond its training, and what that consists of."""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarking import ROOT, at_least, parser, write
from rich.console import Console
from rich.table import Table

MUST_S, AIM_S = 0.5, 0.3

OVERRIDES = ["experiment=quick", "trainer=cpu", "trainer.max_epochs=1", "total_iters=10"]

RUN, FIT = "coreai_opt.sweep.job_configs:JobConfigs.load_sweep_config", "fit"

# What is timed, each without what it calls of the others; the second ones once torch is there.
EXPERIMENT = "coreai_opt.experiment"
LIGHT = {
    RUN: "compose the config",
    "hydra.core.utils:run_job": "Hydra's files and logging, the rest",
    f"{EXPERIMENT}.run:_check": "check the config",
    f"{EXPERIMENT}.run:_start": "look for an earlier run",
    f"{EXPERIMENT}.record:code_of_this_run": "versions, state of the checkout",
    f"{EXPERIMENT}.record:write_json": "write record and heartbeat",
}
HEAVY = {
    f"{EXPERIMENT}.build:build": "build model, data and trainer",
    f"{EXPERIMENT}.train:_fit_from": "log the config, start to train",
    "pytorch_lightning:Trainer.fit": FIT,
    f"{EXPERIMENT}.train:_evaluate": "validate and test",
    f"{EXPERIMENT}.train:_export": "export",
    f"{EXPERIMENT}.train:count_operations": "count operations",
    f"{EXPERIMENT}.present:draw_run": "draw the picture",
}
BETWEEN = "between two runs"
PARTS = [part for part in (*LIGHT.values(), *HEAVY.values(), BETWEEN) if part != FIT]


class Timers:
    """Seconds by what they were spent on, one dict a run.

    Attributes:
        runs: in the order in which they began; each begins where its config is composed.
    """

    def __init__(self) -> None:
        self.runs: list[dict[str, float]] = []
        self._now, self._stack = time.perf_counter(), [BETWEEN]

    def attach(self, places: dict[str, str]) -> None:
        """Time functions, ``{"module:attribute": what}``."""
        for place, what in places.items():
            module, _, path = place.partition(":")
            *parents, name = path.split(".")
            owner: Any = importlib.import_module(module)
            for parent in parents:
                owner = getattr(owner, parent)
            setattr(owner, name, self._timed(getattr(owner, name), what))

    def settle(self) -> None:
        """Count the time since the last change for what is on top."""
        before, self._now = self._now, time.perf_counter()
        if self.runs:
            self.runs[-1][self._stack[-1]] += self._now - before

    def _timed(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.settle()
            if what == LIGHT[RUN]:
                self.runs.append(defaultdict(float))
            self._stack.append(what)
            try:
                return function(*args, **kwargs)
            finally:
                self.settle()
                self._stack.pop()

        return timed


def main() -> None:
    """Run the sweeps, print the table and write the JSON."""
    given = _arguments(sys.argv[1:])
    if given.inside is not None:
        _run_inside(given.inside, given.overrides)
        return
    results = measure(given.runs, given.repeat)
    Console().print(_table(results))
    write(given.json, "scripts/bench sweep", results)


def measure(runs: int, repeat: int) -> dict[str, Any]:
    """Return the medians over the runs of several sweeps, without the first run of each.

    Args:
        runs: of a sweep, >= 2.
        repeat: sweeps, each in a process of its own.
    """
    sweeps = [_sweep(runs) for _ in range(repeat)]
    later = [run for sweep in sweeps for run in sweep[1:]]
    beyond = [sum(run.values()) - run[FIT] for run in later]
    first = [sum(sweep[0].values()) for sweep in sweeps]
    total = median(sum(run.values()) for run in later)
    return {
        "overrides": OVERRIDES,
        "runs": runs,
        "sweeps": repeat,
        "seconds": {
            "run": round(total, 4),
            "fit": round(median(run[FIT] for run in later), 4),
            "beyond_fit": round(median(beyond), 4),
            "beyond_fit_fastest": round(min(beyond), 4),
            "first_run_more": round(median(first) - total, 4),
        },
        "must_s": MUST_S,
        "aim_s": AIM_S,
        "parts": {part: round(median(run.get(part, 0.0) for run in later), 4) for part in PARTS},
    }


def _arguments(arguments: Sequence[str]) -> Namespace:
    made = parser("sweep", __doc__)
    made.add_argument(
        "--runs", type=at_least(2), default=8, help="runs of a sweep, >= 2 (default: 8)"
    )
    made.add_argument("--repeat", type=at_least(1), default=3, help="sweeps (default: 3)")
    made.add_argument("--inside", type=Path, help="run one sweep here, and write its times there")
    made.add_argument("overrides", nargs="*", help="with --inside: the command")
    return made.parse_args(arguments)


def _sweep(runs: int) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as name:
        times = Path(name, "times.json")
        place = [f"hydra.sweep.dir={name}/sweep", f"paths.sweep_root={name}"]
        command = ["-m", *OVERRIDES, f"seed=range({runs})", *place]
        program = [sys.executable, __file__, "--inside", str(times), "--", *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(program, cwd=ROOT, env=environment, check=True, capture_output=True)
        found: list[dict[str, float]] = json.loads(times.read_text())
    assert len(found) == runs
    return found


def _run_inside(times: Path, command: list[str]) -> None:
    """Run a command with timers attached; torch is imported when the command does it."""
    timers = Timers()
    sys.path.insert(0, str(ROOT))
    timers.attach(LIGHT)
    run = importlib.import_module(f"{EXPERIMENT}.run")
    quiet = run.quiet_lightning

    def heavy_is_there() -> None:
        run.quiet_lightning = quiet
        timers.attach(HEAVY)
        quiet()

    run.quiet_lightning = heavy_is_there
    sys.argv = [str(ROOT / "train.py"), *command]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        timers.settle()
        times.write_text(json.dumps(timers.runs))


def _table(results: dict[str, Any]) -> Table:
    seconds = results["seconds"]
    title = f"a small run of a sweep, median of {results['sweeps']} x {results['runs'] - 1} runs"
    table = Table("", title=title)
    for column in ("ms", "must", "aim"):
        table.add_column(column, justify="right")
    table.add_row("a run", _ms(seconds["run"]), "", "")
    table.add_row("its fit", _ms(seconds["fit"]), "", "")
    table.add_row("beyond its fit", _ms(seconds["beyond_fit"]), _ms(MUST_S), _ms(AIM_S))
    table.add_row("  the fastest", _ms(seconds["beyond_fit_fastest"]), "", "")
    table.add_row(
        "the first one, imports of torch and Lightning, more", _ms(seconds["first_run_more"])
    )
    table.add_section()
    for part, spent in sorted(results["parts"].items(), key=lambda one: -one[1]):
        table.add_row(f"  {part}", _ms(spent), "", "")
    return table


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


if __name__ == "__main__":
    main()
