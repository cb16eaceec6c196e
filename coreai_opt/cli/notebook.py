"""Sweeps from Python: the command's sweeps, in the same directories, with the same records."""

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from coreai_opt.cli.sweep_command import plan_of
from coreai_opt.config.composing import NO_FLAGS, command_context, typed_flags
from coreai_opt.config.errors import ConfigError
from coreai_opt.config.explain_errors import diagnose
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.report.collect import collect
from coreai_opt.report.formatting import quoted
from coreai_opt.report.records import RunRow
from coreai_opt.report.values import config_value, knob_value
from coreai_opt.sweep.jobs import job_of
from coreai_opt.sweep.launchers.select import check_installed
from coreai_opt.sweep.plan import Planner
from coreai_opt.sweep.plugins import take_names
from coreai_opt.sweep.sweeper import current_sweep

if TYPE_CHECKING:
    import pandas as pd

# What is left of a record in a table: one value a column.
COLUMNS = ("run_id", "status", "seed", "wall_seconds", "attempts", "config_hash")


def sweep(
    *overrides: str,
    config_dir: str | Path | None = None,
    config_name: str = "config",
    **knobs: Any,
) -> "pd.DataFrame":
    """Run a sweep as ``python train.py -m OVERRIDES`` does, and return its records.

    What is done is not run again, a run that fails takes no other with it, and the command and
    this function meet in the same directory.

    Args:
        *overrides: ``key=value`` or ``key=value,value`` each, as typed.
        config_dir: folder with options of your own, as with ``--config-dir``.
        config_name: the primary config.
        **knobs: values by key; a list, tuple or range is what is swept over.

    Returns:
        What ``load`` returns for the points of this sweep, one row a run.

    Raises:
        ConfigError: everything that is wrong with the overrides; nothing is run then.
        ImportError: pandas is not installed.

    Example:
        ::

            from coreai_opt.sweep import sweep

            runs = sweep("experiment=quick", schedule=["poly", "linear"], seed=range(3))
            runs.groupby("schedule")["test/accuracy"].agg(["mean", "std"])
    """
    _pandas()
    typed = [*overrides, *(f"{key}={_value(value)}" for key, value in knobs.items())]
    check_installed(typed)
    register_nodes()
    take_names()
    folder = None if config_dir is None else str(config_dir)
    arguments = Namespace(**vars(NO_FLAGS) | {"config_name": config_name, "config_dir": folder})
    typed_flags.set(arguments)
    with command_context(arguments) as name:
        running = GlobalHydra.instance()
        loader = running.config_loader()
        try:
            planner = Planner(loader, name, typed)
        except HydraException as error:
            raise ConfigError(diagnose(error, typed)) from error
        made = plan_of(planner, loader, name)
        if made is None:
            sentence = "hydra/sweeper: not one of ours; allowed: grid, optuna, optuna_pareto"
            raise ConfigError.of("hydra/sweeper", sentence)
        token = current_sweep.set(made)
        try:
            assert running.hydra is not None
            own = [*made.fitting, "hydra.mode=MULTIRUN"]
            running.hydra.multirun(config_name=name, task_function=job_of(_train), overrides=own)
        finally:
            current_sweep.reset(token)
    hashes = [outcome.entry.point.config_hash for outcome in made.outcomes]
    frame = load(made.plan.root)
    if frame.empty:
        return frame
    return frame[frame["config_hash"].isin(hashes)].reset_index(drop=True)


def load(*folders: str | Path) -> "pd.DataFrame":
    """Return the records below folders as a table, one row a run, whatever became of it.

    Args:
        *folders: directories of sweeps or of runs.

    Returns:
        Columns ``folder``, ``sweep``, ``run_id``, ``status`` (``interrupted`` where the process is
        gone), ``seed``, ``wall_seconds``, ``attempts``, ``config_hash``; a column for each key that
        was overridden in one of the runs, with the default in the others; ``objective``,
        ``sparsity`` (achieved), ``sparsity_of_all_weights``, ``parameters``, ``nonzero``, a column
        for each metric, and ``error``. What a run has not is missing there.

    Raises:
        FileNotFoundError: one of the folders is not there.
        ImportError: pandas is not installed.
    """
    pandas = _pandas()
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no directory {path}")
    collected = collect(paths)
    keys = dict.fromkeys(key for row in collected.rows for key in row.overrides)
    return pandas.DataFrame([_row(row, keys) for row in collected.rows])


def _row(row: RunRow, keys: Iterable[str]) -> dict[str, Any]:
    record = row.record
    objective, sparsity = record.get("objective") or {}, record.get("sparsity") or {}
    parameters, error = record.get("parameters") or {}, record.get("error") or {}
    return {
        "folder": str(row.folder),
        "sweep": row.sweep,
        **{name: record.get(name) for name in COLUMNS},
        "status": row.state,
        **{key: _cell(row, key) for key in keys},
        "objective": objective.get("value"),
        "sparsity": sparsity.get("achieved"),
        "sparsity_of_all_weights": sparsity.get("of_all_weights"),
        "parameters": parameters.get("total"),
        "nonzero": parameters.get("nonzero"),
        **(record.get("metrics") or {}),
        "error": error.get("message"),
    }


def _cell(row: RunRow, key: str) -> Any:
    """Return a knob as the config has it where that is a plain value, else as text."""
    text, value = knob_value(row, key), config_value(row, key)
    if text in ("true", "false") and isinstance(value, bool | str):
        return text == "true"
    return value if text is not None and isinstance(value, int | float | str) else text


# An item of a list that Hydra's grammar reads as one value of that text, or as the number it is.
SIMPLE = re.compile(r"[\w./+-]+")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return _text(value)
    return ",".join(_text(item) for item in value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value if SIMPLE.fullmatch(value) else quoted(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quoted(str(value)) if isinstance(value, Path) else str(value)


def _train(cfg: DictConfig) -> float | None:
    from coreai_opt.training.run import run

    return run(cfg)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        sentence = "records as a table need pandas: pip install 'hydra-coreai-opt[pandas]'"
        raise ImportError(sentence) from error
    return pandas
