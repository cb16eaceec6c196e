"""Forecast of runs: how each stands, how long it takes, when it prunes, by its app."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from coreai_opt.config.errors import Problem
from coreai_opt.config.locations import typed_path
from coreai_opt.runs.resume import resume_problems
from coreai_opt.sweep.folder import EntryState, SweepJob
from coreai_opt.sweep.plan import Plan, Point
from coreai_opt.sweep.preview.history import History
from coreai_opt.sweep.preview.planned import PlannedRun, planned_run, standing


class Forecast(ABC):
    """What a preview asks an app about the runs of a plan.

    Attributes:
        of_what: the earlier records are that tell how long runs take.
        prunes: whether anything is pruned, or could be.
        control: override that makes a run the dense control.
        problems: what is in the way of all runs.
        failures: what some of the runs will fail by, besides the problems of their points.
    """

    of_what = "this model and data"
    prunes = True
    control = "schedule=none"
    problems: Sequence[Problem] = ()
    failures: Sequence[Problem] = ()

    @abstractmethod
    def run(self, entry: SweepJob, state: EntryState, will_run: bool) -> PlannedRun:
        """Return a run as it is shown.

        Args:
            entry: the run.
            state: of its directory.
            will_run: whether this command would run it.
        """

    @abstractmethod
    def count(self, points: Sequence[Point]) -> int:
        """Return how many earlier records tell the time of some runs."""


class OwnForecast(Forecast):
    """Forecast of trainings of our own app.

    Args:
        plan: of the sweep.
    """

    def __init__(self, plan: Plan) -> None:
        paths, self._resume = plan.config["paths"], plan.config.get("resume")
        self.problems = resume_problems(plan.config, is_sweep=True)
        roots = [typed_path(paths["sweep_root"]), typed_path(paths["output_root"])]
        self._history = History.read([plan.root, *roots])

    def run(self, entry: SweepJob, state: EntryState, will_run: bool) -> PlannedRun:
        how = standing(entry.paths, state, will_run, self._resume)
        return planned_run(entry.point, how, self._history)

    def count(self, points: Sequence[Point]) -> int:
        return self._history.count(point.config for point in points)
