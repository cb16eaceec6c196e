"""Forecast of the runs of any app: by earlier records of the app, and by the knobs of pruning."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Literal

from coreai_opt.plugin.asked import knobs_in
from coreai_opt.plugin.jobs.resume_key import newest_in
from coreai_opt.plugin.settings import GUESS
from coreai_opt.runs.existing_run import read_json
from coreai_opt.runs.paths import INNER, RunPaths
from coreai_opt.sweep.folder import EntryState, SweepJob
from coreai_opt.sweep.plan import Plan, Point
from coreai_opt.sweep.preview.forecast import Forecast
from coreai_opt.sweep.preview.planned import PlannedRun, Standing
from coreai_opt.sweep.preview.ramps import Ramp, TrainingLength
from lightning_callbacks._resume.checkpoint_files import CheckpointFile

MOST_RECORDS = 200


class AnyForecast(Forecast):
    """Forecast of the runs of another app.

    A run takes as long as the median of those with the same overrides but for the seed, else of all
    earlier runs of the app, in this sweep and in those beside it.

    Args:
        plan: of the sweep.
        app: name of the app.
    """

    of_what = "this app"

    def __init__(self, plan: Plan, app: str) -> None:
        knobs = [one for point in plan.points if (one := knobs_in(point.config)) is not None]
        self.prunes = bool(knobs)
        self._is_guessed = getattr(plan.settings, "resume_key", None) == GUESS
        self.failures = [problem for one in knobs for problem in one.problems]
        if knobs:
            self.control = knobs[0].option.partition("=")[0] + "=none"
        found = (read_json(path) or {} for path in _newest(plan.root))
        self._records = [
            one
            for one in islice(found, MOST_RECORDS)
            if one.get("status") == "completed"
            and one.get("kind") != "warmup"
            and (one.get("app") or {}).get("name") == app
        ]

    def run(self, entry: SweepJob, state: EntryState, will_run: bool) -> PlannedRun:
        point, alike = entry.point, self._alike(entry.point)
        length, ramp = _length_in(alike), _ramp_of(point.config, _length_in(alike))
        target = ramp.target if isinstance(ramp, Ramp) else {"none": 0.0}.get(ramp)
        step = _step(entry.paths, self._is_guessed) if state == "interrupted" else None
        how = Standing(state, will_run, step)
        took = _seconds(alike)
        if took is not None and how.step and length.steps:
            took *= max(0.0, 1 - how.step / length.steps)
        return PlannedRun(point, how, length, ramp, target, took)

    def count(self, points: Sequence[Point]) -> int:
        return len({id(one) for point in points for one in self._alike(point)})

    def of_any_run(self) -> tuple[float | None, int]:
        """Return the median seconds of earlier runs, None without one, and how many they are."""
        return _seconds(self._records), len(self._records)

    def _alike(self, point: Point) -> list[dict[str, Any]]:
        mine = _but_seeds(point.overrides)
        same = [one for one in self._records if _but_seeds(one.get("overrides") or ()) == mine]
        return same or self._records


def _newest(root: Path) -> list[Path]:
    """Return the records of a sweep, and of those beside it; the newest of each first."""
    inner = str(RunPaths(Path(), INNER).result)
    own = {*root.glob(f"*/{inner}")}
    beside = {*root.parent.glob(f"*/*/{inner}")} - own
    written = {path: path.stat().st_mtime for path in own | beside}
    return [
        *sorted(own, key=lambda path: -written[path]),
        *sorted(beside, key=lambda path: -written[path]),
    ]


def _seconds(records: Sequence[Mapping[str, Any]]) -> float | None:
    seconds = [one["wall_seconds"] for one in records if one.get("wall_seconds") is not None]
    return median(seconds) if seconds else None


def _but_seeds(overrides: Sequence[Any]) -> frozenset[str]:
    keyed = ((str(one).partition("=")[0], str(one)) for one in overrides)
    return frozenset(text for key, text in keyed if key.lstrip("+").rpartition(".")[2] != "seed")


def _length_in(records: Sequence[Mapping[str, Any]]) -> TrainingLength:
    known = [one["training"] for one in records if isinstance(one.get("training"), Mapping)]
    if not known:
        return TrainingLength()
    lengths = {(one.get("steps"), one.get("steps_per_epoch")) for one in known}
    if len(lengths) != 1:
        return TrainingLength()
    ((steps, each),) = lengths
    return TrainingLength(steps, each, known[0].get("epochs"))


def _ramp_of(
    config: Mapping[str, Any], length: TrainingLength
) -> Ramp | Literal["none", "unknown"]:
    knobs = knobs_in(config)
    if knobs is None or knobs.is_dense:
        return "none"
    if knobs.schedule is None or knobs.problems:
        return "unknown"
    return Ramp(knobs.schedule, str(knobs.values["interval"]), knobs.target, length)


def _step(paths: RunPaths, is_guessed: bool) -> int | None:
    """Return the step that a run goes on from; 0 where its checkpoint does not say, None = none."""
    found = newest_in(paths, is_guessed)
    if found is None:
        return None
    file = CheckpointFile.at(found.path)
    return 0 if file is None else file.step
