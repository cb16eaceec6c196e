"""Exact resume in any Lightning app: ``python their_app.py +resumable=on``."""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


# Of jobs that are not recorded, by their directories.
_trainers: Counter[str] = Counter()


def _folder(job: str) -> Path:
    """Return where a Trainer of a job writes: each has a folder of its own."""
    values = open_values()
    if values is None:
        _trainers[job] += 1
        number = _trainers[job]
    else:
        values.trainers += 1  # of this attempt
        number = values.trainers
    first = RunPaths(Path(job), INNER).resume
    return first if number == 1 else first.with_name(f"{first.name}-{number}")


def _made(root: str, folder: Path, settings: Mapping[str, Any]) -> list[Any]:
    module, package = HOMES[root]
    values, home = open_values(), importlib.import_module(package)
    if values is None or values.interruptions is None:
        return [home.ResumableCheckpoint(folder, **settings)]
    ours = importlib.import_module(module)
    made: list[Any] = [ours.SignalsWait(values, drop_sigterm)]
    if values.warmup_end is not None:
        made.append(ours.EndOfWarmup(values, values.warmup_end))
    ends = _Ends([values.interruptions.pending, *(one.error for one in made[1:])])
    return [home.ResumableCheckpoint(folder, **settings, interruption=ends), *made]


class _Ends:
    """What ends a training at a step boundary: the first of some that has a reason."""

    def __init__(self, asked: Sequence[Callable[[], BaseException | None]]) -> None:
        self._asked = asked

    def __getstate__(self) -> dict[str, Any]:
        return {"_asked": ()}  # signals arrive in the process of the job

    def __call__(self) -> BaseException | None:
        return next((error for ask in self._asked if (error := ask()) is not None), None)
