"""Cost of a small run of a sweep beyond its training."""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarking import ROOT, at_least, parser, table, write
from rich.table import Table

MUST_S, AIM_S = 0.5, 0.3

OVERRIDES = ["experiment=quick", "trainer=cpu", "trainer.max_epochs=1", "total_iters=10"]


def main() -> None:
    """Run the sweeps, print the table and write the JSON."""
    made = parser("sweep", __doc__)
    made.add_argument(
        "--runs", type=at_least(2), default=8, help="runs of a sweep, >= 2 (default: 8)"
    )
    made.add_argument("--repeat", type=at_least(1), default=3, help="sweeps (default: 3)")
    made.add_argument("--inside", type=Path, help="run one sweep here, and write its times there")
    made.add_argument("overrides", nargs="*", help="with --inside: the command")
    given = made.parse_args()
    if given.inside is not None:
        _run_inside(given.inside, given.overrides)
        return
    results = measure(given.runs, given.repeat)
    write(given.json, "scripts/bench sweep", results, _table(results))


def measure(runs: int, repeat: int) -> dict[str, Any]:
    """Return the time between two fits, over several sweeps of some runs with a process each."""
    sweeps = [_sweep(runs) for _ in range(repeat)]
    beyond = [begin - end for fits in sweeps for (_, end), (begin, _) in pairwise(fits)]
    seconds = {
        "fit": median(end - begin for fits in sweeps for begin, end in fits[1:]),
        "beyond_fit": median(beyond),
        "beyond_fit_fastest": min(beyond),
    }
    return {
        "overrides": OVERRIDES,
        "runs": runs,
        "sweeps": repeat,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "must_s": MUST_S,
        "aim_s": AIM_S,
    }


def _sweep(runs: int) -> list[list[float]]:
    with tempfile.TemporaryDirectory() as name:
        times = Path(name, "times.json")
        folder = [f"hydra.sweep.dir={name}/sweep", f"paths.sweep_root={name}"]
        command = ["-m", *OVERRIDES, f"seed=range({runs})", *folder]
        program = [sys.executable, __file__, "--inside", str(times), "--", *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(program, cwd=ROOT, env=environment, check=True, capture_output=True)
        fits: list[list[float]] = json.loads(times.read_text())
    assert len(fits) == runs
    return fits


def _run_inside(times: Path, command: list[str]) -> None:
    """Run a command, and write when each fit began and ended."""
    from pytorch_lightning import Trainer

    fits: list[tuple[float, float]] = []
    fit = Trainer.fit

    def timed(*args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        fit(*args, **kwargs)
        fits.append((began, time.perf_counter()))

    Trainer.fit = timed
    sys.path.insert(0, str(ROOT))
    sys.argv = [str(ROOT / "train.py"), *command]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        times.write_text(json.dumps(fits))


def _table(results: dict[str, Any]) -> Table:
    title = f"a small run of a sweep, median of {results['sweeps']} x {results['runs'] - 1} runs"
    made = table(title, [""], ["ms", "must", "aim"])
    bounds = {"beyond_fit": (f"{MUST_S * 1e3:.0f}", f"{AIM_S * 1e3:.0f}")}
    for name, seconds in results["seconds"].items():
        label = name.replace("_", " ")
        made.add_row(label, f"{1000 * seconds:.0f}", *bounds.get(name, ()))
    return made


if __name__ == "__main__":
    main()
