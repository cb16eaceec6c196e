"""Summary of a search: the best trial, or the Pareto front of two objectives."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table

from coreai_opt.report.formatting import short_value


def print_best(trials: Sequence[FrozenTrial], objectives: Sequence[str], study: str) -> None:
    """Print a table of the best trials.

    Args:
        trials: none where no trial has a value.
        objectives: their names.
        study: its name.
    """
    wide = None if sys.stdout.isatty() else 160
    console = Console(markup=False, emoji=False, highlight=False, width=wide)
    if not trials:
        console.print(f"study {study}: no trial has a value yet", soft_wrap=True)
        return
    several = len(objectives) > 1
    title = "trials that no other one beats in everything" if several else "best trial"
    knobs = list(dict.fromkeys(key for trial in trials for key in trial.params))
    table = Table("trial", *objectives, *knobs, "run", title=title, title_justify="left")
    for trial in sorted(trials, key=lambda one: list(one.values), reverse=True):
        values = [short_value(*pair) for pair in zip(objectives, trial.values, strict=True)]
        params = [_short(trial.params.get(key, "")) for key in knobs]
        table.add_row(str(trial.number), *values, *params, _run(trial))
    console.print(table)


def write_results(trials: Sequence[FrozenTrial], path: Path, objectives: int) -> None:
    """Write the best trials, if there are any, named as by Hydra's own Optuna sweeper."""
    if not trials:
        return
    best = trials[0]
    found: dict[str, Any] = {"best_params": best.params, "best_run": _run(best)}
    if objectives == 1:
        found["best_value"] = best.value
    else:
        solutions = [
            {"params": one.params, "values": list(one.values), "run": _run(one)} for one in trials
        ]
        found = {"solutions": solutions}
    beside = path.with_name(f".{path.name}")
    OmegaConf.save(OmegaConf.create({"name": "optuna", **found}), beside)
    beside.replace(path)


def _run(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("run_folder", ""))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
