"""Accuracy of schedules, allocations and criteria on the MNIST subset, against dense."""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarking import ROOT, records, run_sweep, table, write
from rich.table import Table

# The same training for all; total_iters and begin_step are optimizer steps of 550. The others are
# compared with the first.
SCHEDULES = {
    "none (dense control)": ["schedule=none"],
    "poly, power 2, 400 steps": ["schedule=poly", "power=2", "total_iters=400"],
    "linear, 400 steps": ["schedule=linear", "total_iters=400"],
    "constant, all at once at step 0": ["schedule=constant", "begin_step=0"],
    "constant, all at once at step 400": ["schedule=constant", "begin_step=400"],
}
SPARSE = ["target_sparsity=0.95"]
CHOICES = {
    "none (dense control)": ["schedule=none"],
    "uniform, magnitude": SPARSE,
    "erdos_renyi, magnitude": [*SPARSE, "allocation=erdos_renyi"],
    "global, magnitude": [*SPARSE, "allocation=global"],
    "uniform, taylor": [*SPARSE, "criterion=taylor", "update_frequency=10"],
    "uniform, random": [*SPARSE, "criterion=random"],
    "uniform, magnitude, no regrowth": [*SPARSE, "allow_regrowth=false"],
    "blocks of 1 x 4, magnitude": [*SPARSE, "pruning=block"],
}
TABLES = {"schedules": SCHEDULES, "choices": CHOICES}


def main() -> None:
    """Run every variant with every seed, print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench schedules", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds a variant (default: 3)")
    parser.add_argument("--what", choices=TABLES, default="schedules", help="what is compared")
    parser.add_argument("--json", type=Path, help="default: docs/benchmarks/WHAT.json")
    arguments = parser.parse_args()
    path = arguments.json or ROOT / "docs" / "benchmarks" / f"{arguments.what}.json"
    seeds = list(range(1, arguments.seeds + 1))
    with tempfile.TemporaryDirectory() as folder:
        results = {
            name: _runs(overrides, seeds, Path(folder, str(index)))
            for index, (name, overrides) in enumerate(TABLES[arguments.what].items())
        }
    command = f"scripts/bench schedules --what {arguments.what}"
    write(path, command, _report(results, seeds), _table(results))


def _runs(overrides: list[str], seeds: list[int], folder: Path) -> list[dict[str, Any]]:
    run_sweep(folder, [*overrides, f"seed={','.join(map(str, seeds))}"])
    return sorted(records(folder), key=lambda record: seeds.index(record["seed"]))


def _table(results: dict[str, list[dict[str, Any]]]) -> Table:
    columns = ("mean", "std", "against dense", "sparsity", "seconds a run")
    made = table("test accuracy at the target sparsity, percent", ["run"], columns)
    dense = _mean(next(iter(results.values())), "test/accuracy")
    for name, runs in results.items():
        accuracies = [100 * run["metrics"]["test/accuracy"] for run in runs]
        mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
        sparsity = statistics.mean(run["sparsity"]["achieved"] for run in runs)
        seconds = statistics.median(run["wall_seconds"] for run in runs)
        cells = (f"{mean:.2f}", f"{std:.2f}", f"{mean - dense:+.2f}", f"{100 * sparsity:.1f}")
        made.add_row(name, *cells, f"{seconds:.1f}")
    return made


def _mean(runs: list[dict[str, Any]], metric: str) -> float:
    return 100 * statistics.mean(run["metrics"][metric] for run in runs)


def _report(results: dict[str, list[dict[str, Any]]], seeds: list[int]) -> dict[str, Any]:
    first = next(iter(results.values()))[0]
    kept = ("overrides", "metrics", "wall_seconds", "training")
    return {
        "seeds": seeds,
        "device": first["device"],
        "threads": first["threads"],
        "runs": {
            name: [
                {**{key: run[key] for key in kept}, "sparsity": run["sparsity"]["achieved"]}
                for run in runs
            ]
            for name, runs in results.items()
        },
    }


if __name__ == "__main__":
    main()
