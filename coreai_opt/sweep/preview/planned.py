"""Planned runs as plain data: the runs of a plan and their status."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from coreai_opt.config.schemas.nodes import SCHEDULE_NAMES
from coreai_opt.runs.paths import RunPaths
from coreai_opt.sweep.folder import EntryState
from coreai_opt.sweep.plan import Point
from coreai_opt.sweep.preview.history import History
from coreai_opt.sweep.preview.ramps import Ramp, TrainingLength, length_of, ramp_of, target_of
from lightning_callbacks._resume.checkpoint_files import checkpoint_files

SEED = "seed"


@dataclass(frozen=True)
class Standing:
    """Status of a run before the command.

    Attributes:
        state: of its directory.
        will_run: whether this command would run it.
        step: the step from which it would resume, None for a new start.
    """

    state: EntryState
    will_run: bool = True
    step: int | None = None

    @property
    def text(self) -> str:
        """In words.

        Example:
            >>> Standing("completed", will_run=False).text, Standing("failed").text
            ('done', 'failed, runs again')
            >>> Standing("interrupted", step=200).text, Standing("interrupted").text
            ('to resume', 'interrupted, begins anew')
        """
        if self.state == "interrupted":
            return "interrupted, begins anew" if self.step is None else "to resume"
        if self.state == "unreadable":
            return "unreadable, begins anew"
        word = "done" if self.state == "completed" else self.state
        is_again = self.will_run and self.state in ("completed", "failed")
        return f"{word}, runs again" if is_again else word


def standing(paths: RunPaths, state: EntryState, will_run: bool, resume: Any) -> Standing:
    """Return the status of a run.

    Args:
        paths: its directory.
        state: of that directory.
        will_run: whether this command would run it.
        resume: the knob of that name.
    """
    step = None
    if state == "interrupted" and resume != "never":
        step = next((file.step for file in checkpoint_files(paths.resume)), None)
    return Standing(state, will_run, step)


@dataclass(frozen=True)
class PlannedRun:
    """One run as it is shown.

    Attributes:
        point: its overrides and config.
        standing: its status.
        length: of its training.
        ramp: when it is pruned.
        target: its sparsity at the end, None = not known.
        seconds: time from its present step, None = not known.
    """

    point: Point
    standing: Standing
    length: TrainingLength
    ramp: Ramp | Literal["none", "unknown"]
    target: float | None
    seconds: float | None


def planned_run(point: Point, how: Standing, history: History) -> PlannedRun:
    """Return a point with all that is known of it."""
    length = length_of(point.config, history)
    ramp = ramp_of(point.config, length)
    seconds = history.seconds(point.config, length.steps)
    if seconds is not None and how.step and length.steps:
        seconds *= max(0.0, 1 - how.step / length.steps)
    target = 0.0 if ramp == "none" else target_of(point.config)
    return PlannedRun(point, how, length, ramp, target, seconds)


@dataclass(frozen=True)
class PlannedGroup:
    """Runs that differ in their seed alone.

    Attributes:
        varied: the value of each knob that varies, but for the seed.
        runs: in the order of the plan.
    """

    varied: Mapping[str, str]
    runs: tuple[PlannedRun, ...]

    @property
    def seeds(self) -> tuple[str, ...]:
        """The seeds, as they were typed or as the config has them."""
        return tuple(str(run.point.config.get(SEED)) for run in self.runs)

    @property
    def states(self) -> Mapping[str, int]:
        """Number of runs by status."""
        return Counter(run.standing.text for run in self.runs)


def seed_groups(runs: Iterable[PlannedRun]) -> list[PlannedGroup]:
    """Return the runs by everything but their seed, in the order of the first of each."""
    groups: dict[tuple[tuple[str, str], ...], list[PlannedRun]] = {}
    for run in runs:
        key = tuple((name, text) for name, text in run.point.varied.items() if name != SEED)
        groups.setdefault(key, []).append(run)
    return [PlannedGroup(dict(key), tuple(members)) for key, members in groups.items()]


@dataclass
class Preview:
    """Everything that is shown.

    Attributes:
        title: names the sweep or run.
        knobs: the columns that tell runs apart.
        runs: in the order of the plan.
        is_sweep: whether there may be several.
        earlier: number of records behind the time.
        of_what: these are records of.
        prunes: whether anything is pruned, or could be.
        control: override that makes a run the dense control.
        sentences: facts about the runs.
        warnings: probable mistakes.
        hints: possible improvements.
    """

    title: str
    knobs: tuple[str, ...]
    runs: tuple[PlannedRun, ...]
    is_sweep: bool
    earlier: int = 0
    of_what: str = "this model and data"
    prunes: bool = True
    control: str = "schedule=none"
    sentences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    @cached_property
    def groups(self) -> list[PlannedGroup]:
        return seed_groups(self.runs)

    @property
    def to_run(self) -> list[PlannedRun]:
        """Runs that this command would start."""
        return [run for run in self.runs if run.standing.will_run]

    @cached_property
    def ramps(self) -> dict[Ramp, list[PlannedRun]]:
        """The distinct ramps, and the runs that have them."""
        ramps: dict[Ramp, list[PlannedRun]] = {}
        for run in self.runs:
            if isinstance(run.ramp, Ramp):
                ramps.setdefault(run.ramp, []).append(run)
        return ramps

    @property
    def seconds(self) -> tuple[float, int]:
        """Time of the runs with a known time, and the number of the others."""
        known = [run.seconds for run in self.to_run if run.seconds is not None]
        return sum(known), len(self.to_run) - len(known)


def label_of(ramp: Ramp, preview: Preview) -> str:
    """Return the label of a ramp: the knobs that distinguish it, else its schedule.

    Example: of ``power=1,2 optimizer.lr=0.1,0.2`` the two ramps are ``power=1`` and ``power=2``.
    """
    mine = preview.ramps[ramp]
    others = [run for known, runs in preview.ramps.items() if known != ramp for run in runs]
    parts = []
    for knob in (known for known in preview.knobs if known != SEED):
        values = {run.point.varied.get(knob) for run in mine}
        is_telling = any(run.point.varied.get(knob) not in values for run in others)
        if len(values) == 1 and None not in values and is_telling:
            parts.append(f"{knob}={next(iter(values))}")
    if parts:
        return " ".join(parts)
    key = type(ramp.schedule).registry_key() or ""
    return f"{SCHEDULE_NAMES.get(key, key)} to {100 * ramp.target:g} %"
