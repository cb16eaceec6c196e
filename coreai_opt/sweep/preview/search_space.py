"""Search space of a searching sweeper, as a table."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    ValueType,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.table import Table
from rich.text import Text

from coreai_opt.sweep.axes import parse
from coreai_opt.sweep.plan import Planner

# Settings of sweepers, by the names that the common ones have for them.
TOLD = ("n_trials", "direction", "n_jobs", "study_name", "storage", "max_iter", "num_evals")


# Knob, kind (``interval``, ``range``, ``choice`` or ``fixed``), allowed values, and flags: how an
# interval is searched, ``int``, ``log`` and other tags.
Dimension = tuple[str, str, str, str]


@dataclass(frozen=True)
class SearchSpace:
    """Search space, and the settings of its sweeper.

    Attributes:
        sweeper: its name.
        dimensions: the knobs, those that vary first.
        settings: settings of the sweeper.
    """

    sweeper: str
    dimensions: tuple[Dimension, ...]
    settings: Mapping[str, str]

    @property
    def trials(self) -> int | None:
        """How many runs there are to be, None where the sweeper does not say."""
        count = self.settings.get("n_trials", "")
        return int(count) if count.isdigit() else None


def search_space(planner: Planner, loader: ConfigLoader, root: Path | None = None) -> SearchSpace:
    """Return the search space of a command line.

    Typed values count before the ``params`` of the sweeper's own node.

    Args:
        planner: has read the command line.
        loader: finds the config files.
        root: the sweep's directory, None = it is not known yet.
    """
    settings = planner.composer.hydra(planner.options)
    node = settings.sweeper
    given = _plain(node, "params")
    params = [f"{key}={value}" for key, value in given.items()] if isinstance(given, dict) else []
    given_here = [*parse(params, loader), *planner.runs_own]
    merged = {one.get_key_element(): one for one in given_here}
    dimensions = sorted(map(dimension, merged.values()), key=lambda one: one[1] == "fixed")
    shown = _in_place(planner, str(_plain(settings, "sweep.dir")), root)
    chosen = {key: shown(_text(value)) for key in TOLD if (value := _plain(node, key)) is not None}
    name = OmegaConf.select(settings, "runtime.choices", default={}).get("hydra/sweeper")
    return SearchSpace(str(name or node.get("_target_")), tuple(dimensions), chosen)


def _in_place(planner: Planner, composed: str, known: Path | None) -> Callable[[str], str]:
    """Return a function that puts the sweep's directory into settings of the sweeper.

    Hydra composes them without the name, which depends on the varying knobs.
    """
    if known is not None:
        root = str(known)
    elif planner.app.given_name(planner) is not None:
        root = str(planner.place(())[1])
    elif "None" in Path(composed).parts:
        root = str(Path(composed).parent / "SWEEP_NAME")
    else:
        root = composed
    return lambda text: text.replace(composed, root)


def dimension(override: Override) -> Dimension:
    """Return the values that an override allows for a knob."""
    knob, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        ends = f"{value.start:g} to {value.end:g}"
        # Written as floats: interval(1, 4); as whole numbers: int(interval(1, 4)).
        both: tuple[Any, Any] = (value.start, value.end)
        is_whole = all(isinstance(end, int) for end in both)
        return knob, "interval", ends, _flags(value.tags, is_whole)
    if isinstance(value, RangeSweep):
        step = "" if value.step == 1 else f" by {value.step}"
        ends = f"{value.start} to below {value.stop}{step}"
        return knob, "range", ends, _flags(value.tags)
    if isinstance(value, ChoiceSweep) or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        values = ", ".join(map(str, override.sweep_string_iterator()))
        return knob, "choice", values, _flags(getattr(value, "tags", ()))
    return knob, "fixed", str(override.input_line).partition("=")[2], ""


def space_table(space: SearchSpace) -> Table:
    """Return one row a knob."""
    table = Table(show_edge=False, pad_edge=False)
    for column in ("knob", "kind", "values", "flags"):
        table.add_column(column, overflow="fold")
    for one in space.dimensions:
        table.add_row(*map(Text, one))
    return table


def _flags(tags: Iterable[str] | None, is_whole: bool = False) -> str:
    return ", ".join([*(["int"] if is_whole else []), *sorted(tags or ())])


def _text(value: Any) -> str:
    return value.name if isinstance(value, Enum) else str(value)


def _plain(node: DictConfig, key: str) -> Any:
    try:
        value = OmegaConf.select(node, key)
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
