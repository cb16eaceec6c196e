"""Earlier records: the length of a training and its time."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from coreai_opt.config.identity import flatten
from coreai_opt.runs.existing_run import read_json
from coreai_opt.runs.paths import RunPaths

MOST_RECORDS = 200
APART = 2  # factor between two lengths that define a line
ALIKE = 4  # largest factor that one length alone serves for

# Keys that do not change the time of a step.
NOT_OF_THE_DATA = ("data.seed", "data.split_seed", "data.num_workers", "data.root", "data.download")

# Keys of the trainer that decide the number of steps.
OF_THE_LENGTH = (
    "max_epochs",
    "max_steps",
    "limit_train_batches",
    "accumulate_grad_batches",
    "devices",
    "num_nodes",
    "fast_dev_run",
    "overfit_batches",
    "max_time",
)


@dataclass(frozen=True)
class EarlierTraining:
    """Training of one record.

    Attributes:
        kind: its model and data, as a text that is equal for equal ones.
        limits: the length limits of its trainer.
        steps: optimizer steps.
        per_epoch: optimizer steps of an epoch, None where the record does not say.
        seconds: wall time of the run, with that of a warm-up that it took from another one.
    """

    kind: str
    limits: str
    steps: int
    per_epoch: int | None
    seconds: float | None


class History:
    """Earlier trainings, asked about configs.

    The time of a run is the median of earlier runs with the same model, data and length. Another
    length lies on the line through two lengths, one at least twice the other; a single length
    serves in proportion, up to four times as long or as short. Device, workers and load of the
    machine are assumed to be unchanged.

    Args:
        trainings: the earlier ones.
    """

    def __init__(self, trainings: Iterable[EarlierTraining]) -> None:
        self._by_kind: dict[str, list[EarlierTraining]] = {}
        for training in trainings:
            self._by_kind.setdefault(training.kind, []).append(training)

    @classmethod
    def read(cls, folders: Sequence[Path]) -> "History":
        """Read the newest records below some directories, one or two levels down.

        Args:
            folders: directories, which may be missing; records of the first one count first.
        """
        paths = list(dict.fromkeys(path for folder in folders for path in _newest(folder)))
        records = (read_json(path) for path in paths[:MOST_RECORDS])
        trainings = (_training(record) for record in records if record is not None)
        return cls(training for training in trainings if training is not None)

    def same(self, config: Mapping[str, Any]) -> list[EarlierTraining]:
        """Return the trainings of the model and data of a config."""
        return self._by_kind.get(model_and_data_of(config), []) if self._by_kind else []

    def count(self, configs: Iterable[Mapping[str, Any]]) -> int:
        """Return how many trainings there are of the models and data of some configs."""
        if not self._by_kind:
            return 0
        kinds = {model_and_data_of(config) for config in configs}
        return sum(len(self._by_kind.get(kind, [])) for kind in kinds)

    def as_long(self, config: Mapping[str, Any]) -> EarlierTraining | None:
        """Return a training that was as long as a config's would be, None where there is none."""
        limits = _limits_of(config)
        return next((one for one in self.same(config) if one.limits == limits), None)

    def seconds(self, config: Mapping[str, Any], steps: int | None) -> float | None:
        """Return the time of a run, None without a fitting record.

        Args:
            config: the resolved config.
            steps: optimizer steps of its training, None = not known.
        """
        timed: dict[int, list[float]] = {}
        for one in self.same(config):
            if one.seconds is not None:
                timed.setdefault(one.steps, []).append(one.seconds)
        return _by_length({length: median(known) for length, known in timed.items()}, steps)


def _by_length(known: Mapping[int, float], steps: int | None) -> float | None:
    if not steps or not known:
        return None
    near = min(known, key=lambda length: (abs(length - steps), length))
    others = [one for one in known if max(one, near) >= APART * min(one, near)]
    if near == steps:
        return known[near]
    if not others:
        is_alike = max(near, steps) <= ALIKE * min(near, steps)
        return known[near] * steps / near if is_alike else None
    far = min(others, key=lambda length: (abs(length - steps), length))
    a_step = (known[far] - known[near]) / (far - near)
    on_line = known[near] + max(0.0, a_step) * (steps - near)
    return on_line if on_line > 0 else known[near] * steps / near


def model_and_data_of(config: Mapping[str, Any]) -> str:
    """Return the model and data of a config as one text."""
    nodes = {key: config.get(key) for key in ("model", "data")}
    flat = {key: value for key, value in flatten(nodes).items() if key not in NOT_OF_THE_DATA}
    return json.dumps(flat, sort_keys=True, default=str)


def _limits_of(config: Mapping[str, Any]) -> str:
    trainer = config.get("trainer") or {}
    flat = flatten({key: trainer.get(key) for key in OF_THE_LENGTH})
    return json.dumps(flat, sort_keys=True, default=str)


def _training(record: Mapping[str, Any]) -> EarlierTraining | None:
    config, training = record.get("config"), record.get("training")
    is_done = record.get("status") == "completed" and record.get("kind") != "warmup"
    if not is_done or not isinstance(config, Mapping) or not isinstance(training, Mapping):
        return None
    steps, per_epoch = training.get("steps"), training.get("steps_per_epoch")
    if not isinstance(steps, int) or steps < 1:
        return None
    seconds = record.get("wall_seconds")
    warmup = record.get("warmup") or record.get("trunk")  # its former name
    saved = (warmup or {}).get("seconds_saved") or 0.0
    return EarlierTraining(
        model_and_data_of(config),
        _limits_of(config),
        steps,
        per_epoch if isinstance(per_epoch, int) and per_epoch > 0 else None,
        float(seconds) + float(saved) if isinstance(seconds, int | float) else None,
    )


def _newest(root: Path) -> list[Path]:
    name, written = RunPaths(root).result.name, dict[Path, float]()
    for path in (*root.glob(f"*/{name}"), *root.glob(f"*/*/{name}")):
        with suppress(OSError):  # it may be taken away meanwhile
            written[path] = path.stat().st_mtime
    return sorted(written, key=lambda path: written[path], reverse=True)[:MOST_RECORDS]
