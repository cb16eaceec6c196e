"""Measures what jobs that run side by side save, and whether they change; see bench-joblib."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]

JOBS = 8
LAUNCHERS = {
    "one after the other": [],
    "side by side": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}


def main() -> None:
    """Run both sweeps, print the ratio and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=24, help="epochs a job (default: 24)")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "benchmarks" / "joblib.json")
    arguments = parser.parse_args()
    seeds = ",".join(str(seed) for seed in range(1, JOBS + 1))
    overrides = ["trainer=cpu", f"trainer.max_epochs={arguments.epochs}", f"seed={seeds}"]
    with tempfile.TemporaryDirectory() as name:
        timed = {kind: _sweep(Path(name), kind, overrides) for kind in LAUNCHERS}
    alone, together = timed.values()
    different = [
        one["config_hash"]
        for one, other in zip(alone["records"], together["records"], strict=True)
        if one["metrics"] != other["metrics"]
    ]
    Console().print(_table(timed))
    ratio = together["seconds"] / alone["seconds"]
    verdict = "of equal metrics" if not different else f"different: {different}"
    print(f"ratio {ratio:.3f} with one thread a job in both; the {JOBS} jobs are {verdict}")
    report = _report(overrides, timed, ratio, different)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _sweep(folder: Path, kind: str, overrides: list[str]) -> dict[str, Any]:
    place = folder / kind.replace(" ", "-")
    command = [sys.executable, str(ROOT / "train.py"), "-m", *LAUNCHERS[kind], *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    subprocess.run([*command, f"hydra.sweep.dir={place}"], check=True, cwd=folder, env=environment)
    seconds = time.monotonic() - began
    records = [json.loads(path.read_text()) for path in sorted(place.glob("*/result.json"))]
    return {"seconds": seconds, "records": records}


def _table(timed: dict[str, dict[str, Any]]) -> Table:
    table = Table("jobs", title=f"a sweep of {JOBS} jobs on {os.cpu_count()} cores")
    for column in ("wall s", "a job s, mean", "threads a job"):
        table.add_column(column, justify="right")
    for kind, one in timed.items():
        seconds = mean(record["wall_seconds"] for record in one["records"])
        threads = {record["threads"] for record in one["records"]}
        table.add_row(kind, f"{one['seconds']:.1f}", f"{seconds:.1f}", str(threads).strip("{}"))
    return table


def _report(
    overrides: list[str], timed: dict[str, dict[str, Any]], ratio: float, different: list[str]
) -> dict[str, Any]:
    first = timed["one after the other"]["records"][0]
    return {
        "command": "scripts/bench-joblib",
        "overrides": overrides,
        "versions": first["versions"],
        "device": first["device"],
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "ratio": ratio,
        "different_jobs": different,
        "sweeps": {
            kind: {
                "wall_seconds": one["seconds"],
                "threads": [record["threads"] for record in one["records"]],
                "job_seconds": [record["wall_seconds"] for record in one["records"]],
            }
            for kind, one in timed.items()
        },
    }


if __name__ == "__main__":
    main()
