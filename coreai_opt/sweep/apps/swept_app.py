"""Swept app: what a sweep must know of the app whose runs it makes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omegaconf import DictConfig

from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.schemas.settings import SweepSettings
from coreai_opt.runs.existing_run import ExistingRun

if TYPE_CHECKING:
    from coreai_opt.sweep.plan import Plan, Planner, Point
    from coreai_opt.sweep.preview.forecast import Forecast


GRIDS = (".GridSweeper", ".AnyAppGrid")


def is_grid(sweeper: Mapping[str, Any]) -> bool:
    """Return whether a sweeper of ours crosses lists of values, given Hydra's node of it."""
    return str(sweeper.get("_target_")).endswith(GRIDS)


class PointConfig(Protocol):
    """The config of one run, read before there is one."""

    @property
    def values(self) -> dict[str, Any]:
        """Plain values, nested as in the config."""

    @property
    def names(self) -> Mapping[Any, str]:
        """The key that a value at a path was taken from."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that can be seen to be wrong."""

    @property
    def hash(self) -> str:
        """The same for configs of the same experiment."""

    @property
    def ignore(self) -> tuple[str, ...]:
        """Patterns of keys that do not count in the hash, besides those that the settings name."""

    def why_idle(self, key: str) -> str | None:
        """Return the override with which a key has no effect, None where it has one."""


class SweptApp(ABC):
    """An app, as far as its sweeps need it.

    Attributes:
        inner: folder in a run directory that has its record, empty = the directory itself.
        of_the_sweep: what the keys begin with that are told to the sweep, not to its runs.
    """

    inner = ""
    of_the_sweep: tuple[str, ...] = ()

    @property
    def shares_warmups(self) -> bool:
        """Whether runs may share what they train before they prune."""
        return False

    @abstractmethod
    def knob(self, name: str) -> str:
        """Return the key of one of the sweep's settings, as it is typed."""

    @abstractmethod
    def read(self, task: DictConfig, hydra: DictConfig) -> PointConfig:
        """Return what a composed config says.

        Args:
            task: without Hydra's own node.
            hydra: Hydra's own node.
        """

    @abstractmethod
    def refusal(self, error: Exception, typed: Sequence[str]) -> ConfigError:
        """Return what to tell of overrides that Hydra does not take."""

    @abstractmethod
    def is_left_to_the_run(self, problem: Problem) -> bool:
        """Return whether a problem of a point is the failure of that run alone."""

    @abstractmethod
    def settings(self, planner: "Planner") -> SweepSettings:
        """Return the sweep's settings.

        Raises:
            ConfigError: everything that is wrong with them.
        """

    def search_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a search in Hydra's node of the sweeper."""
        return dict(values)

    @abstractmethod
    def given_name(self, planner: "Planner") -> str | None:
        """Return the name that the user gives the sweep, None where it is made of what varies."""

    @abstractmethod
    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what can change the result, by dotted key."""

    @abstractmethod
    def place(self, planner: "Planner", name: str) -> Path:
        """Return the directory of a sweep of that name.

        Args:
            planner: of the command line.
            name: the sweep's, as part of a path.
        """

    @abstractmethod
    def told(self, planner: "Planner", given: Mapping[str, str]) -> list[str]:
        """Return sentences on what of a command does not count.

        Args:
            planner: of the command line.
            given: the override that gives each key.
        """

    @abstractmethod
    def objective(self, config: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return name and mode (``max``, ``min``, None = not known) of what runs are judged by."""

    def warmup_key(self, point: "Point") -> str | None:
        """Return what is equal for runs with the same dense warm-up, None = it shares none."""
        return None

    @abstractmethod
    def processes(self, config: Mapping[str, Any]) -> int | None:
        """Return how many ranks a run has, None = only the run can tell."""

    @abstractmethod
    def accelerator(self, config: Mapping[str, Any]) -> str:
        """Return what runs compute on: ``cpu``, ``gpu``, ``auto`` or so."""

    @abstractmethod
    def differences(self, point: "Point", run: ExistingRun) -> list[str]:
        """Return what is another value in a run than in its plan, ``key: planned -> run``."""

    def is_whole(self, point: "Point", record: Mapping[str, Any]) -> bool:
        """Return whether a completed run has all that its plan asks of it once it is trained."""
        return True

    @abstractmethod
    def summary(self, record: Mapping[str, Any], name: str) -> str:
        """Return what a run came to, in one line.

        Args:
            record: of a run that has completed.
            name: of its directory.
        """

    @abstractmethod
    def forecast(self, plan: "Plan") -> "Forecast":
        """Return what a preview asks about the runs of a plan."""

    @abstractmethod
    def alone(self, plan: "Plan", point: "Point") -> str:
        """Return the command that runs one point alone, in the sweep's directory."""
