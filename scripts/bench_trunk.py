"""Measures what a shared dense warm-up saves, and whether it changes anything; see bench-trunk."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]

STEPS_PER_EPOCH = 55

# A step of this net takes about as long when it is pruned; with the default MLP, and masks made at
# every step, the dense half of the steps is a third of the time.
TRAINING = ["model=convnet", "update_frequency=10"]
SWEPT = ["power=1,2,3,4", "target_sparsity=0.8,0.9"]
JOBS = 8

# What one process measures, or is called, differs from run to run.
OWN = ("run_id", "started", "finished", "wall_seconds", "overrides", "trunk")


def main() -> None:
    """Run both sweeps, compare every job, print the ratio and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="epochs a job (default: 20)")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "benchmarks" / "trunk.json")
    arguments = parser.parse_args()
    begin = arguments.epochs * STEPS_PER_EPOCH // 2
    training = [f"trainer.max_epochs={arguments.epochs}", f"begin_step={begin}"]
    overrides = [*TRAINING, *training, f"total_iters={begin // 2}", *SWEPT]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = {trunk: _sweep(folder, trunk, overrides) for trunk in ("off", "auto")}
        results = {trunk: [_job(folder, trunk, job) for job in range(JOBS)] for trunk in seconds}
    different = [
        job for job in range(JOBS) if not _equal(results["off"][job], results["auto"][job])
    ]
    Console().print(_table(seconds, results))
    verdict = "equal in record and weights" if not different else f"different: {different}"
    print(f"ratio {seconds['auto'] / seconds['off']:.3f}; the {JOBS} jobs are {verdict}")
    arguments.json.write_text(
        json.dumps(_report(overrides, seconds, results, different), indent=2) + "\n"
    )
    sys.exit(1 if different else 0)


def _sweep(folder: Path, trunk: str, overrides: list[str]) -> float:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *overrides, f"trunk={trunk}"]
    began = time.monotonic()
    subprocess.run([*command, f"hydra.sweep.dir={folder / trunk}"], check=True, cwd=folder)
    return time.monotonic() - began


def _job(folder: Path, trunk: str, job: int) -> dict[str, Any]:
    # Their folders have the same names in both sweeps; the first job is the one that ran first.
    begun = {path.parent.name: path for path in (folder / "auto").glob("*/result.json")}
    started = {name: json.loads(path.read_text())["started"] for name, path in begun.items()}
    root = folder / trunk / sorted(started, key=started.__getitem__)[job]
    record = (root / "result.json").read_text().replace(str(root), "RUN")
    return {"record": json.loads(record), "weights": torch.load(root / "weights.pt")}


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    records = [dict(job["record"]) for job in (one, other)]
    for record in records:
        for name in OWN:
            del record[name]
        del record["config"]["trunk"]
    keys = one["weights"].keys()
    same = all(torch.equal(one["weights"][key], other["weights"][key]) for key in keys)
    return records[0] == records[1] and same and keys == other["weights"].keys()


def _table(seconds: dict[str, float], results: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table("trunk", title=f"a sweep of {JOBS} jobs, begin_step at half of the training")
    for column in ("wall s", "first job s", "other jobs s, mean", "saved s, by the records"):
        table.add_column(column, justify="right")
    for trunk, jobs in results.items():
        records = [job["record"] for job in jobs]
        others = [record["wall_seconds"] for record in records[1:]]
        saved = sum((record["trunk"] or {}).get("seconds_saved", 0.0) for record in records)
        cells = (seconds[trunk], records[0]["wall_seconds"], sum(others) / len(others), saved)
        table.add_row(trunk, *(f"{cell:.1f}" for cell in cells))
    return table


def _report(
    overrides: list[str],
    seconds: dict[str, float],
    results: dict[str, list[dict[str, Any]]],
    different: list[int],
) -> dict[str, Any]:
    first = results["off"][0]["record"]
    return {
        "command": "scripts/bench-trunk",
        "overrides": overrides,
        "versions": first["versions"],
        "device": first["device"],
        "threads": first["threads"],
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "wall_seconds": seconds,
        "ratio": seconds["auto"] / seconds["off"],
        "different_jobs": different,
        "jobs": {
            trunk: [
                {"wall_seconds": job["record"]["wall_seconds"], "trunk": job["record"]["trunk"]}
                for job in jobs
            ]
            for trunk, jobs in results.items()
        },
    }


if __name__ == "__main__":
    main()
