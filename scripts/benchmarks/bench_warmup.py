"""Time of a sweep whose jobs share their dense warm-up, and whether their results differ."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarking import at_least, parser, run_sweep, table, write
from rich.table import Table

STEPS_PER_EPOCH = 55

# A step of this net takes about as long when it is pruned; with the default MLP, and masks made at
# every step, the dense half of the steps is a third of the time.
TRAINING = ["model=convnet", "update_frequency=10"]
SWEPT = ["power=1,2,3,4", "target_sparsity=0.8,0.9"]
JOBS = 8

# What one process measures, or is called, differs from run to run.
OWN = ("run_id", "started", "finished", "wall_seconds", "overrides", "warmup")

CHOICES = ("off", "auto")


def main() -> None:
    """Run both sweeps in both ways, compare every job, print the ratios and write the JSON."""
    made = parser("warmup", __doc__)
    made.add_argument("--epochs", type=at_least(2), default=20, help="epochs a job (default: 20)")
    made.add_argument(
        "--workers", type=at_least(1), default=JOBS, help=f"of joblib (default: {JOBS})"
    )
    arguments = made.parse_args()
    begin = arguments.epochs * STEPS_PER_EPOCH // 2
    training = [f"trainer.max_epochs={arguments.epochs}", f"begin_step={begin}"]
    overrides = [*TRAINING, *training, f"total_iters={begin // 2}", *SWEPT]
    at_once = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={arguments.workers}"]
    load = os.getloadavg()[0]
    ways = {"one after the other": overrides, "at once": [*overrides, *at_once]}
    found = {way: _measured(texts) for way, texts in ways.items()}
    results = {"load_before": load, **found}
    write(arguments.json, "scripts/bench warmup", results, _table(found))
    for way, one in found.items():
        verdict = "different" if one["different_jobs"] else "equal in record and weights"
        print(
            f"{way}: ratio of wall time {one['wall_ratio']:.3f}, of all runs' seconds "
            f"{one['device_ratio']:.3f}; the {JOBS} jobs are {verdict}"
        )
    sys.exit(any(one["different_jobs"] for one in found.values()))


def _measured(overrides: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wall = {
            choice: run_sweep(folder / choice, [*overrides, f"warmup={choice}"])
            for choice in CHOICES
        }
        runs = {choice: _runs(folder / choice) for choice in CHOICES}
    # A warm-up run is no job, and its seconds count.
    device = {
        choice: sum(run["record"]["wall_seconds"] for run in runs[choice].values())
        for choice in CHOICES
    }
    first = next(iter(runs["off"].values()))["record"]
    jobs = sorted(runs["off"])
    assert len(jobs) == JOBS
    return {
        "overrides": overrides,
        "versions": first["versions"],
        "device": first["device"],
        "threads": first["threads"],
        "wall_seconds": wall,
        "wall_ratio": wall["auto"] / wall["off"],
        "device_seconds": device,
        "device_ratio": device["auto"] / device["off"],
        "different_jobs": [job for job in jobs if not _equal(*(runs[one][job] for one in CHOICES))],
        "runs": {
            choice: {name: run["record"]["wall_seconds"] for name, run in runs[choice].items()}
            for choice in CHOICES
        },
    }


def _runs(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return record and weights of each run of a sweep, by the name of its folder."""
    found = {}
    for path in sorted(sweep.glob("*/result.json")):
        record = json.loads(path.read_text().replace(str(path.parent), "RUN"))
        weights = path.with_name("weights.pt")
        found[path.parent.name] = {
            "record": record,
            "weights": torch.load(weights) if weights.exists() else {},
        }
    return found


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    records = [dict(job["record"]) for job in (one, other)]
    for record in records:
        for name in OWN:
            del record[name]
        record["config"] = {**record["config"], "warmup": None}
    keys = one["weights"].keys()
    same = all(torch.equal(one["weights"][key], other["weights"][key]) for key in keys)
    return records[0] == records[1] and same and keys == other["weights"].keys()


def _table(found: dict[str, dict[str, Any]]) -> Table:
    title = f"a sweep of {JOBS} jobs, begin_step at half of the training"
    made = table(title, ["", "warmup"], ["wall s", "s of all runs"])
    for way, one in found.items():
        for choice in CHOICES:
            cells = (one["wall_seconds"][choice], one["device_seconds"][choice])
            made.add_row(way, choice, *(f"{cell:.1f}" for cell in cells))
    return made


if __name__ == "__main__":
    main()
