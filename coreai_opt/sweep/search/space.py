"""Search space: the sweeps of a command line as Optuna's distributions."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.sweep.axes import Assignment, Axis
from coreai_opt.sweep.plan import Plan, Planner, Point

MOST_PROBES = 64


def distribution_of(override: Override) -> BaseDistribution:
    """Return Optuna's distribution of an override, as Hydra's own Optuna sweeper reads it.

    An interval is continuous, ``int(interval(1,4))`` and ranges of integers are integers,
    ``tag(log, interval(...))`` is spread over orders of magnitude, everything else is a choice.
    Both ends of a range count.

    Args:
        override: one with a list, a range or an interval.

    Raises:
        ConfigError: Optuna cannot choose from it.
    """
    value: Any = override.value()
    try:
        if isinstance(value, IntervalSweep):
            return _between(value.start, value.end, None, "log" in value.tags)
        if isinstance(value, RangeSweep) and not value.shuffle:
            return _between(value.start, value.stop, value.step, False)
        return CategoricalDistribution(_choices(override, value))
    except ValueError as error:
        sentence = f"{override.input_line}: {' '.join(str(error).split())}"
        allowed = "allowed: interval(LOW,HIGH), range(LOW,HIGH,STEP) or choice(A,B)"
        raise ConfigError.of(override.get_key_element(), f"{sentence}; {allowed}") from error


def _between(low: Any, high: Any, step: Any, is_log: bool) -> BaseDistribution:
    given = [number for number in (low, high, step) if number is not None]
    with warnings.catch_warnings():
        # range(200,401,100) ends at 400, which Optuna says each time.
        warnings.filterwarnings("ignore", ".*not divisible by `step`")
        if any(isinstance(number, float) for number in given):
            return FloatDistribution(low, high, log=is_log, step=step)
        return IntDistribution(low, high, log=is_log, step=1 if step is None else step)


def _choices(override: Override, value: Any) -> list[Any]:
    # Not in the order of a shuffle, which would be another one in the next command.
    if isinstance(value, RangeSweep):
        return list(value.range())
    values = getattr(value, "list", None) or override.sweep_iterator()
    # As they are typed: a text may have a comma in it.
    choices = [one if isinstance(one, int | float) else Transformer.str(one) for one in values]
    if not choices:
        raise ValueError("no option fits")
    return choices


class Space:
    """Search space, and its points.

    Args:
        planner: of the command line.
        loader: reads the values that are chosen.

    Attributes:
        distributions: by key as typed.

    Raises:
        ConfigError: a sweep that Optuna cannot choose from.
    """

    def __init__(self, planner: Planner, loader: ConfigLoader) -> None:
        self._planner, self._loader = planner, loader
        self._overrides = {one.get_key_element(): one for one in planner.runs_own}
        keys = [one.get_key_element() for one in planner.of_task]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ConfigError.of(twice[0], f"{twice[0]} is given twice; allowed in a search: once")
        self.distributions: dict[str, BaseDistribution] = {}
        problems: list[Problem] = []
        for key, override in self._overrides.items():
            if override.is_sweep_override():
                try:
                    self.distributions[key] = distribution_of(override)
                except ConfigError as error:
                    problems += error.problems
        if problems:
            raise ConfigError(problems)

    def outline(self) -> Plan:
        """Return the sweep without its points.

        Raises:
            ConfigError: the sweep's own settings are wrong, or a knob has no place in the config.
        """
        return self._planner.outline(self._axes())

    def point(self, params: Mapping[str, Any]) -> Point:
        """Return the point of a trial.

        Args:
            params: key as typed, and value.

        Raises:
            ConfigError: what is wrong with it.
        """
        texts = {
            key: f"{key}={_text(params[key])}" if key in params else str(override.input_line)
            for key, override in self._overrides.items()
        }
        # Suggestions of a user's function are not in the command line.
        texts |= {key: f"{key}={_text(value)}" for key, value in params.items()}
        assignments = self._assignments(list(texts.values()))
        shown = {key: _short(value) for key, value in params.items()}
        varied = {
            one.name: shown[key]
            for key, one in zip(texts, assignments, strict=True)
            if key in shown
        }
        return self._planner.point(assignments, varied)

    def check(self) -> None:
        """Refuse mistakes that no choice of values can avoid.

        Raises:
            ConfigError: the mistakes that all tried points share.
        """
        wrong: dict[str, Problem] | None = None
        for params in islice(self._corners(), MOST_PROBES):
            found = {one.sentence: one for one in self._problems(params)}
            shared = found if wrong is None else {key: wrong[key] for key in wrong if key in found}
            if not shared:
                return
            wrong = shared
        if wrong:
            raise ConfigError(list(wrong.values()))

    def _problems(self, params: Mapping[str, Any]) -> Sequence[Problem]:
        try:
            return self.point(params).problems
        except ConfigError as error:
            return error.problems

    def _corners(self) -> Iterator[dict[str, Any]]:
        """Yield all choices, each with the least and with the greatest of all numbers."""
        for end in ("low", "high"):
            values = [_values(one, end) for one in self.distributions.values()]
            yield from (dict(zip(self.distributions, one, strict=True)) for one in product(*values))

    def _axes(self) -> list[Axis]:
        axes = []
        for key, override in self._overrides.items():
            texts = [str(override.input_line)]
            if (searched := self.distributions.get(key)) is not None:
                texts = [f"{key}={_text(value)}" for value in _values(searched, "low")]
            rows = tuple((one,) for one in self._assignments(texts))
            axes.append(Axis(rows, is_varied=searched is not None))
        return axes

    def _assignments(self, texts: Sequence[str]) -> list[Assignment]:
        parsed = OverridesParser.create(self._loader).parse_overrides(list(texts))
        return [Assignment(*pair) for pair in zip(texts, parsed, strict=True)]


def _values(distribution: BaseDistribution, end: str) -> list[Any]:
    """Return all choices, or the number at one end."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [getattr(distribution, end)]


def _text(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _text(value)
