"""Command that runs the experiment of a record again."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coreai_opt.report.formatting import quoted
from coreai_opt.report.records import mapping, override_list


def rerun_command(record: Mapping[str, Any], folder: Path | None = None) -> str:
    """Return the command that runs the experiment of a record alone, quoted for a shell.

    A run of a sweep is run again as a point of that sweep, in the directory that it has.

    Args:
        record: the run's.
        folder: its directory, where that is known.

    Example:
        >>> rerun_command({"overrides": ["schedule=poly", "model.hidden=[8,4]"]})
        "python train.py schedule=poly 'model.hidden=[8,4]'"
        >>> rerun_command({"app": {"program": "python app.py"}, "overrides": ["lr=0.1"]})
        'python app.py lr=0.1'
    """
    given, app = record.get("flags"), mapping(record.get("app"))
    flags = list(map(str, given)) if isinstance(given, list) else []
    program = str(app.get("program") or "python train.py")
    sweep, of_sweep = record.get("sweep"), list[str]()
    if isinstance(sweep, str) and folder is not None:
        place = f"hydra.sweep.dir={quoted(str(folder.parent))}"
        named = f"sweep_name={quoted(sweep)}"
        if app:
            named = f"hydra.sweeper.name={quoted(sweep)}"
            of_sweep = ["hydra/sweeper=grid"]
        of_sweep = ["-m", *of_sweep, named, place]
    return f"{program} {shlex.join([*flags, *of_sweep, *override_list(record)])}".strip()
