"""Exact resume in any Lightning app: ``python their_app.py +resumable=on``."""

import importlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from coreai_opt.plugin.trainer_callbacks import HOMES
from coreai_opt.runs.paths import INNER, RunPaths
from coreai_opt.runs.values import open_values
from lightning_callbacks._lightning_internals import drop_sigterm

NODE = "resumable"  # its name under hydra.callbacks


class Resumable(Callback):
    """Says that each Trainer of a job gets a ``ResumableCheckpoint``.

    Args:
        every_n_steps: optimizer steps between two checkpoints, >= 1; None = none within an epoch.
        every_n_epochs: epochs between two checkpoints, >= 1; None = none at ends of epochs.
        keep: how many files stay, >= 1.
    """

    def __init__(
        self, every_n_steps: int | None = None, every_n_epochs: int | None = 1, keep: int = 2
    ) -> None:
        pass  # each job reads its own from its config


def resumables_of(root: str, hydra: DictConfig) -> list[Any]:
    """Return what makes the trainings of a job go on exactly, for one of its Trainers.

    Args:
        root: of the Trainer, ``pytorch_lightning`` or ``lightning.pytorch``.
        hydra: Hydra's own node of the job's config.
    """
    node = (hydra.callbacks or {}).get(NODE) or {}
    given: Any = OmegaConf.to_container(node, resolve=True) if node else {}
    settings = {key: value for key, value in given.items() if not key.startswith("_")}
    return _made(root, _folder(str(hydra.runtime.output_dir)), settings)


_trainers: Counter[str] = Counter()


def _folder(job: str) -> Path:
    """Return where a Trainer of a job writes: each has a folder of its own."""
    _trainers[job] += 1
    first = RunPaths(Path(job), INNER).resume
    number = _trainers[job]
    return first if number == 1 else first.with_name(f"{first.name}-{number}")


def _made(root: str, folder: Path, settings: Mapping[str, Any]) -> list[Any]:
    module, package = HOMES[root]
    values, home = open_values(), importlib.import_module(package)
    if values is None or values.interruptions is None:
        return [home.ResumableCheckpoint(folder, **settings)]
    pending, ours = values.interruptions.pending, importlib.import_module(module)
    signals = ours.SignalsWait(values, drop_sigterm)
    if values.warmup_end is None:
        return [home.ResumableCheckpoint(folder, **settings, interruption=pending), signals]
    end = ours.EndOfWarmup(values, values.warmup_end)
    resumable = home.ResumableCheckpoint(
        folder, **settings, interruption=lambda: pending() or end.error()
    )
    return [resumable, signals, end]
