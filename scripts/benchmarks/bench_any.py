"""Cost of a sweep of another app: a trivial task under our grid, against Hydra's own sweeper."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarking import at_least, parser, table, write
from rich.table import Table

MUST_MS, MUST_S = 20.0, 5.0

APP = """
import hydra

@hydra.main(config_path=None, config_name=None, version_base=None)
def main(cfg):
    return float(cfg.x)

main()
"""


def main() -> None:
    """Run the sweeps, print the table and write the JSON."""
    made = parser("any", __doc__)
    made.add_argument(
        "--points", type=at_least(2), default=1000, help="points of a sweep, >= 2 (default: 1000)"
    )
    made.add_argument("--repeat", type=at_least(1), default=3, help="sweeps of each (default: 3)")
    given = made.parse_args()
    results = measure(given.points, given.repeat)
    write(given.json, "scripts/bench any", results, _table(results))


def measure(points: int, repeat: int) -> dict[str, Any]:
    """Return the times of sweeps by both sweepers, one after the other in turn."""
    hydras, ours, again = list[float](), list[float](), list[float]()
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as name:
            Path(name, "app.py").write_text(APP)
            hydras.append(_sweep(name, points, "hydra/sweeper=basic"))
            ours.append(_sweep(name, points, "hydra/sweeper=grid"))
            again.append(_sweep(name, points, "hydra/sweeper=grid"))
    beyond = [1000 * (our - hydra) / points for our, hydra in zip(ours, hydras, strict=True)]
    return {
        "points": points,
        "sweeps": repeat,
        "seconds": {
            "hydra": round(median(hydras), 3),
            "grid": round(median(ours), 3),
            "skip_all": round(median(again), 3),
        },
        "ms_a_point_beyond_hydra": round(median(beyond), 2),
        "must_ms_a_point": MUST_MS,
        "must_s_skip_all": MUST_S,
    }


def _sweep(folder: str, points: int, sweeper: str) -> float:
    command = [sys.executable, "app.py", "-m", sweeper, f"+x=range({points})"]
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def _table(results: dict[str, Any]) -> Table:
    title = f"{results['points']} points of a trivial task, median of {results['sweeps']} sweeps"
    made = table(title, [""], ["", "must"])
    for name, seconds in results["seconds"].items():
        bound = f"{MUST_S:g} s" if name == "skip_all" else ""
        made.add_row(name.replace("_", " "), f"{seconds:.2f} s", bound)
    beyond = results["ms_a_point_beyond_hydra"]
    made.add_row("a point beyond Hydra's own", f"{beyond:.1f} ms", f"{MUST_MS:g} ms")
    return made


if __name__ == "__main__":
    main()
