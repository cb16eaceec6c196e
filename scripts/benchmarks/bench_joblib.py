"""Time of jobs side by side against one after the other, and whether their results differ."""

import os
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarking import at_least, parser, records, run_sweep, table, write
from rich.table import Table

JOBS = 8
LAUNCHERS = {
    "one after the other": [],
    "side by side": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}


def main() -> None:
    """Run both sweeps, print the ratio and write the JSON."""
    made = parser("joblib", __doc__)
    made.add_argument("--epochs", type=at_least(1), default=24, help="epochs a job (default: 24)")
    arguments = made.parse_args()
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
    ratio = together["seconds"] / alone["seconds"]
    verdict = "of equal metrics" if not different else f"different: {different}"
    results = {
        "overrides": overrides,
        "device": alone["records"][0]["device"],
        "ratio": ratio,
        "different_jobs": different,
        "sweeps": {
            kind: {
                "wall_seconds": sweep["seconds"],
                "threads": [record["threads"] for record in sweep["records"]],
                "job_seconds": [record["wall_seconds"] for record in sweep["records"]],
            }
            for kind, sweep in timed.items()
        },
    }
    write(arguments.json, "scripts/bench joblib", results, _table(timed))
    print(f"ratio {ratio:.3f} with one thread a job in both; the {JOBS} jobs are {verdict}")


def _sweep(folder: Path, kind: str, overrides: list[str]) -> dict[str, Any]:
    path = folder / kind.replace(" ", "-")
    seconds = run_sweep(path, [*LAUNCHERS[kind], *overrides], OMP_NUM_THREADS="1")
    return {"seconds": seconds, "records": records(path)}


def _table(timed: dict[str, dict[str, Any]]) -> Table:
    title = f"a sweep of {JOBS} jobs on {os.cpu_count()} cores"
    made = table(title, ["jobs"], ["wall s", "a job s, mean", "threads a job"])
    for kind, sweep in timed.items():
        seconds = mean(record["wall_seconds"] for record in sweep["records"])
        threads = {record["threads"] for record in sweep["records"]}
        made.add_row(kind, f"{sweep['seconds']:.1f}", f"{seconds:.1f}", str(threads).strip("{}"))
    return made


if __name__ == "__main__":
    main()
