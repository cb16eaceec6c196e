"""What a sweep consists of: its points without nonsense and without doubles, its name and place."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override

from coreai_opt.config.aliases import keys_of
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.schemas.settings import SweepSettings
from coreai_opt.sweep.apps.own_app import OwnApp
from coreai_opt.sweep.apps.swept_app import PointConfig, SweptApp, is_grid
from coreai_opt.sweep.axes import Assignment, Axis, parse, read_axes, replaced, without_dicts
from coreai_opt.sweep.composing import Composer
from coreai_opt.sweep.names import run_folder, slug, sweep_name

MOST_POINTS = 20_000


@dataclass(frozen=True)
class Point:
    """One run of a sweep, as it is planned.

    Attributes:
        overrides: what the run is given.
        varied: key and value of what varies and counts here.
        dropped: keys that the config has no place for here.
        config: the resolved config; its own directory is not known yet.
        problems: what is wrong with it and left to the run to say.
        experiment: hash of what can change its result.
        ignore: patterns of keys that do not count in it, besides those of the sweep's settings.
        idle: keys without effect here, and the override that takes it.
        warmup_key: of a run that ends where its first mask would be made; None = it is no warm-up.
        config_hash: its experiment; of a warm-up run its key.
    """

    overrides: tuple[str, ...]
    varied: Mapping[str, str]
    dropped: tuple[str, ...]
    config: Mapping[str, Any] = field(repr=False)
    problems: tuple[Problem, ...] = ()
    experiment: str = ""
    ignore: tuple[str, ...] = ()
    idle: Mapping[str, str] = field(default_factory=dict)
    warmup_key: str | None = None

    @property
    def config_hash(self) -> str:
        return self.warmup_key or self.experiment

    @property
    def folder(self) -> str:
        """The name of its folder, where it has none yet."""
        return run_folder(self.varied, self.config_hash)


@dataclass(frozen=True)
class Plan:
    """The runs of one command line, before anything is run.

    Attributes:
        name: what the sweep is called.
        root: its directory.
        knobs: the keys that vary, in alphabetical order.
        points: the runs, each experiment once.
        doubles: points that were the experiment of another one.
        dropped: for each knob that some points have no place for, their choices of options.
        settings: the sweep's own.
        command: the overrides as typed.
        flags: what was typed besides, as ``--config-dir=DIR``.
        config: the config without what varies.
        app: whose runs they are.
        told: what of the command does not count, a sentence each.
    """

    name: str
    root: Path
    knobs: tuple[str, ...]
    points: tuple[Point, ...]
    doubles: int
    dropped: Mapping[str, tuple[str, ...]]
    settings: SweepSettings
    command: tuple[str, ...]
    flags: tuple[str, ...]
    config: Mapping[str, Any] = field(repr=False)
    app: SweptApp = field(repr=False)
    told: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """What a user should know of the points that are not as they were typed."""
        told = [
            *self.told,
            *(
                f"{knob} does not count with {', '.join(choices)}"
                for knob, choices in self.dropped.items()
            ),
        ]
        if self.doubles:
            are = "point is" if self.doubles == 1 else "points are"
            told.append(f"{self.doubles} {are} the same as another one and not run twice")
        return told


class Planner:
    """Reads one command line.

    Args:
        loader: finds the config files.
        config_name: the primary config's name.
        overrides: as typed, those of Hydra's own settings among them.
        flags: what was typed besides, as ``--config-dir=DIR``.
        app: whose runs are planned, None = our own.

    Raises:
        HydraException: an override is not of the form KEY=VALUE.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        config_name: str | None,
        overrides: Sequence[str],
        flags: Sequence[str] = (),
        app: SweptApp | None = None,
    ) -> None:
        self.command, self.flags, self.app = tuple(overrides), tuple(flags), app or OwnApp()
        parsed = parse(overrides, loader)
        self.of_hydra = [str(one.input_line) for one in parsed if one.is_hydra_override()]
        self.of_task = [one for one in parsed if not one.is_hydra_override()]
        self.composer = Composer(loader, config_name, self.of_hydra, self.app)
        self._loader = loader
        self._add_params()

    def _add_params(self) -> None:
        """Take over what ``hydra.sweeper.params`` says in a file; what is typed counts."""
        sweeper = self.composer.hydra(self._parted(_assigned(self.of_task))[0]).sweeper
        params = sweeper.get("params") if is_grid(sweeper) else None
        typed = {one.key_or_group for one in self.of_task if not one.is_delete()}
        filed = [
            f"{key}={value}"
            for key, value in (params or {}).items()
            if key.lstrip("+") not in typed
        ]
        self.of_task = [*parse(filed, self._loader), *self.of_task]

    @cached_property
    def fixed(self) -> list[Assignment]:
        """What does not vary, the sweep's own settings among it."""
        return _assigned(self.of_task)

    @cached_property
    def options(self) -> list[Assignment]:
        """What does not vary and chooses an option of a group."""
        return self._parted(self.fixed)[0]

    @cached_property
    def fitting(self) -> list[str]:
        """What Hydra can compose with: its own, and what has a place where nothing varies."""
        return [*self.of_hydra, *(one.text for one in (*self.options, *self.fitting_values))]

    @cached_property
    def common(self) -> PointConfig:
        """The config without what varies, and without what only some of the points can take."""
        return self.composer.read(self.options, self.fitting_values)

    @property
    def is_grid(self) -> bool:
        """Whether the points are told by the command line, not chosen by a searching sweeper."""
        sweeper = self.composer.hydra(self.options).sweeper
        if str(sweeper.get("_target_")).endswith(".BasicSweeper"):
            sentence = "hydra/sweeper=basic: Hydra's own, which knows of no names and records"
            raise ConfigError.of("hydra/sweeper", f"{sentence}; allowed: grid, which does the same")
        return is_grid(sweeper)

    def point(self, assignments: Iterable[Assignment], varied: Mapping[str, str]) -> Point:
        """Return the point of some overrides; those that it has no place for are dropped.

        Raises:
            ConfigError: what is wrong with its config.
        """
        assignments = list(assignments)
        options, values = self._parted(assignments)
        fitting = self.composer.fitting(options, values)
        dropped = [one for one in values if one not in fitting]
        kept = [one for one in assignments if one not in dropped]
        config = self.composer.read(options, fitting)
        if not all(map(self.app.is_left_to_the_run, config.problems)):
            raise ConfigError(list(config.problems))
        names = tuple(one.name for one in dropped)
        idle = {key: why for key in varied if (why := config.why_idle(key)) is not None}
        counting = {key: value for key, value in varied.items() if key not in {*names, *idle}}
        texts = tuple(one.text for one in kept)
        facts = (config.values, config.problems, config.hash, config.ignore, idle)
        return Point(texts, counting, names, *facts)

    def plan(self) -> Plan:
        """Return the points of the command line.

        Raises:
            ConfigError: everything that is wrong with the command line or one of its points.
        """
        settings = self._settings()
        axes = read_axes(self.runs_own, self._loader, settings.zip, self.app.knob("zip"))
        if (count := prod(len(axis.rows) for axis in axes)) > MOST_POINTS:
            raise ConfigError.of("", f"{count} points; allowed: at most {MOST_POINTS} in a sweep")
        self._refuse_unknown(axes)
        points = self._points(axes)
        distinct = {point.config_hash: point for point in reversed(points)}
        kept = tuple(point for point in points if distinct[point.config_hash] is point)
        return replace(
            self._outline(axes, settings),
            points=kept,
            doubles=len(points) - len(kept),
            dropped=self._dropped(axes, points),
        )

    def outline(self, axes: Sequence[Axis]) -> Plan:
        """Return the sweep without its points: those of a search are not known before it runs.

        Args:
            axes: what varies and what does not.

        Raises:
            ConfigError: the sweep's own settings are wrong, or a knob has no place in the config.
        """
        settings = self._settings()
        self._refuse_unknown(axes)
        return self._outline(axes, settings)

    def _outline(self, axes: Sequence[Axis], settings: SweepSettings) -> Plan:
        values = self.common.values
        knobs = tuple(sorted({name for axis in axes if axis.is_varied for name in axis.names}))
        name, root = self.place(knobs)
        given = (self.command, self.flags, values, self.app)
        return Plan(name, root, knobs, (), 0, {}, settings, *given, told=self.told(axes))

    @property
    def runs_own(self) -> list[Override]:
        """What is told to the runs, not to the sweep."""
        return [one for one in self.of_task if not self._is_of_the_sweep(one.key_or_group)]

    def _is_of_the_sweep(self, key: str) -> bool:
        return key.startswith(self.app.of_the_sweep)

    @cached_property
    def fitting_values(self) -> list[Assignment]:
        return self.composer.fitting(*self._parted(self.fixed))

    def _parted(
        self, assignments: Iterable[Assignment]
    ) -> tuple[list[Assignment], list[Assignment]]:
        """Return the overrides that choose options, and those that set values."""
        options, values = list[Assignment](), list[Assignment]()
        for one in assignments:
            (options if self.composer.is_group(one) else values).append(one)
        return options, values

    def _settings(self) -> SweepSettings:
        problems, lists = list[Problem](), [one for one in self.of_task if one.is_sweep_override()]
        for one in lists:
            if self._is_of_the_sweep(one.key_or_group):
                sentence = f"{one.input_line}: the sweep's own, not its runs'; allowed: one value"
                problems.append(Problem(one.key_or_group, sentence))
        try:
            settings = self.app.settings(self)
        except ConfigError as error:
            raise ConfigError([*error.problems, *problems]) from error
        if problems:
            raise ConfigError(problems)
        return settings

    def _refuse_unknown(self, axes: Sequence[Axis]) -> None:
        """Refuse a knob that no point has a place for, with the sentence of a single run."""
        own = [one for one in self.fixed if self._is_of_the_sweep(one.name)]
        firsts = [*own, *(one for axis in axes for one in axis.rows[0])]
        unknown = {one.key: one for one in firsts if not self.composer.is_group(one)}
        short = [
            axis
            if any(self.composer.is_group(one) for one in axis.rows[0])
            else replace(axis, rows=axis.rows[:1])
            for axis in axes
        ]
        # The first value of each, and only where that is not enough all of them.
        for tried in (short, axes):
            for rows in _crossed(tried):
                if not unknown:
                    return
                point = [*own, *(one for row in rows for one in row)]
                for one in self.composer.fitting(*self._parted(point)):
                    unknown.pop(one.key, None)
        problems: dict[str, Problem] = {}
        options, _ = self._parted(one for row in next(_crossed(axes)) for one in row)
        for one in unknown.values():
            try:
                self.composer.read(options, [one])
            except ConfigError as error:
                problems |= {problem.sentence: problem for problem in error.problems}
        if problems:
            raise ConfigError(list(problems.values()))

    def _points(self, axes: Sequence[Axis]) -> list[Point]:
        points: list[Point] = []
        problems: dict[str, Problem] = {}
        for rows in _crossed(axes):
            pairs = list(zip(axes, rows, strict=True))
            varied: dict[str, str] = {}
            for one in (one for axis, row in pairs if axis.is_varied for one in row):
                varied[one.name] = f"{varied.get(one.name, '')} {one.value}".strip()
            try:
                points.append(self.point((one for row in rows for one in row), varied))
            except ConfigError as error:
                problems |= {without_dicts(one.sentence, rows): one for one in error.problems}
        # A point that has failed is run again alone by the name of its sweep.
        is_joining = self.app.given_name(self) is not None
        if not is_joining and all(point.problems for point in points):
            left = (problem for point in points for problem in point.problems)
            problems |= {problem.sentence: problem for problem in left}
        if problems:
            raise ConfigError(list(problems.values()))
        return points

    def told(self, axes: Sequence[Axis]) -> tuple[str, ...]:
        """Return what of the command does not count, a sentence each.

        Args:
            axes: what varies and what does not.
        """
        told = replaced(self.command, self._loader)
        given: dict[str, str] = {}
        for one in (one for axis in axes for row in axis.rows for one in row):
            for key in keys_of(one.override):
                given.setdefault(key, one.text)
        told += self.app.told(self, given)
        if (subdir := self.composer.subdir(self.options)) is not None:
            names = "a sweep names the folder of a run by what varies, and finds it again by that"
            told.append(f"hydra.sweep.subdir={subdir} does not count: {names}")
        return tuple(told)

    def _dropped(self, axes: Sequence[Axis], points: Sequence[Point]) -> dict[str, tuple[str, ...]]:
        varied = [one for axis in axes if axis.is_varied for row in axis.rows for one in row]
        choices = {one.text for one in varied if self.composer.is_group(one)}
        found: dict[str, dict[str, None]] = {}
        for point in points:
            chosen = " ".join(text for text in point.overrides if text in choices)
            for key in point.dropped:
                found.setdefault(key, {})[chosen] = None
            for key, why in point.idle.items():
                found.setdefault(key, {})[why] = None
        return {key: tuple(where) for key, where in found.items()}

    def place(self, knobs: Sequence[str]) -> tuple[str, Path]:
        """Return the sweep's name and its directory, given the keys that vary."""
        given = self.app.given_name(self)
        name = given if given is not None else sweep_name(knobs, self._in_common(knobs))
        if not slug(name):
            key = self.app.knob("name")
            sentence = f"{key}={name}: names no directory; allowed: letters and digits in it"
            raise ConfigError.of(key, sentence)
        return name, self.app.place(self, slug(name))

    def _in_common(self, knobs: Sequence[str]) -> dict[str, Any]:
        """Return what all points share, whichever values the knobs have."""
        flat = self.app.identity(self.common.values)
        # A value is a knob's where it is taken from it: ${power} in schedule.power.
        fed = {
            ".".join(map(str, path)) for path, name in self.common.names.items() if name in knobs
        }
        below = tuple(f"{knob}." for knob in knobs)
        kept = {
            key: value
            for key, value in flat.items()
            if key not in fed and key not in knobs and not key.startswith(below)
        }
        fitting = {one.text for one in self.fitting_values}
        _, rest = self._parted(self.fixed)
        return kept | {one.name: one.override.value() for one in rest if one.text not in fitting}


def _assigned(overrides: Iterable[Override]) -> list[Assignment]:
    """Return the overrides of one value each."""
    plain = (one for one in overrides if not one.is_sweep_override())
    return [Assignment(str(one.input_line), one) for one in plain]


def _crossed(axes: Sequence[Axis]) -> Iterator[tuple[tuple[Assignment, ...], ...]]:
    return product(*(axis.rows for axis in axes))
