"""Run of a search: asks the study for points, runs them, reports their results."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, Trial

from coreai_opt.config.errors import ConfigError
from coreai_opt.sweep.launchers.base import SweepLauncher
from coreai_opt.sweep.plan import Plan, Point
from coreai_opt.sweep.scheduler import Outcome
from coreai_opt.sweep.search.progress import SearchProgress, search_progress
from coreai_opt.sweep.search.settings import NODE, SearchSettings
from coreai_opt.sweep.search.space import Space
from coreai_opt.sweep.search.study import SearchStudy, best_of
from coreai_opt.sweep.search.summary import print_best, write_results
from coreai_opt.sweep.selection import select
from coreai_opt.sweep.summary import print_queue, print_summary
from coreai_opt.sweep.sweeper import SweepRun


class SearchRun(SweepRun):
    """A search and its results.

    Args:
        plan: the sweep, whose points are not known.
        space: the search space.
        fitting: overrides that Hydra can compose with.
    """

    # Of the search that is at work.
    _study: SearchStudy
    _board: SearchProgress
    _launcher: SweepLauncher

    def __init__(self, plan: Plan, space: Space, fitting: Sequence[str]) -> None:
        super().__init__(plan, fitting)
        self.space = space
        self._settled: dict[str, Outcome] = {}
        self._has_values = True

    @property
    def has_failed(self) -> bool:
        """Whether a run did not complete, or no trial of the study has a value."""
        return super().has_failed or not self._has_values

    def configure(self, config: DictConfig) -> None:
        """Read the settings of the search.

        Args:
            config: as Hydra has composed it, with the directory of the sweep.

        Raises:
            ConfigError: everything that is wrong with it.
        """
        values: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        self._settings = SearchSettings.of(self.plan.app.search_values(values))
        self._config = config

    def run(self, launcher: SweepLauncher) -> list[JobReturn]:
        """Search until the study has its trials.

        Raises:
            ConfigError: the study cannot be opened or gone on with, or another process is at work
                on a search in this directory.
        """
        self.check_ranks(launcher)
        self._launcher = launcher
        with _alone_in(self.plan.root):
            space = self.space.distributions
            study = SearchStudy(self._settings, self.plan.name, space, self._config)
            self._study = study
            study.close_interrupted()
            said = self._look_back()
            keeps_failed = self.plan.settings.retry == "none"
            done = study.counted(keeps_failed)
            to_make = max(0, self._settings.n_trials - done)
            again = study.try_again(to_make, not keeps_failed)
            self.folder.enter(self.plan, [])
            self.save_config()
            try:
                with search_progress(self.plan, to_make) as self._board:
                    self._board.open(study.name, done, again, said)
                    self._search(to_make)
            finally:
                self.folder.stop(self.command_id).unlink(missing_ok=True)
                self._conclude()
        return []

    def _look_back(self) -> list[str]:
        """Begin anew where the settings ask for it, and return sentences on earlier trials."""
        settings = self.plan.settings
        earlier = map(self._earlier_point, self._study.completed())
        points = {one.config_hash: one for one in earlier if one}
        selection = select(self.folder.entries(points.values()), settings, self.plan.app)
        changed = [one for one in selection.to_run if one.state() == "completed"]
        said = [*self.plan.told, *selection.sentences]
        if not changed:
            return said
        kept = self._study.begin_anew()
        return [*said, f"the study begins anew; its trials are kept as {kept!r}"]

    def _earlier_point(self, trial: FrozenTrial) -> Point | None:
        with suppress(ConfigError):
            return self.space.point(trial.params)
        return None

    def _search(self, to_make: int) -> None:
        while to_make > 0:
            size = min(self._settings.n_jobs, to_make)
            to_make -= size
            points: dict[Trial, Point] = {}
            for trial in self._study.ask(size):
                try:
                    points[trial] = self.space.point(trial.params)
                except ConfigError as error:
                    self._board.refused(trial.number, self._study.refuse(trial, error))
            failed = self._run_points(points)
            if failed and self.plan.settings.fail_fast:
                key = self.plan.app.knob("fail_fast")
                self._board.say(f"the search ends: a run has failed ({key}=true)")
                return
            if failed > self._settings.max_failure_rate * size:
                given = f"{NODE}.max_failure_rate={self._settings.max_failure_rate:g}"
                told = f"{failed} of {size} trials have failed ({given})"
                self._board.say(f"the search ends: {told}")
                return

    def _run_points(self, points: Mapping[Trial, Point]) -> int:
        """Run the points that have not been run, tell the study, and return how many failed."""
        new = {
            one.config_hash: one for one in points.values() if one.config_hash not in self._settled
        }
        entries = self.folder.entries(new.values())
        selection = select(entries, self.plan.settings, self.plan.app)
        self.folder.enter(self.plan, entries)
        scheduler = self.scheduler(self._launcher, selection)
        self._board.add(selection)
        try:
            scheduler.run([*selection.warmups, *selection.to_run], self._board.listener)
        finally:
            for outcome in [*selection.settled, *scheduler.outcomes]:
                self._settled[outcome.entry.config_hash] = outcome
                self.outcomes.append(outcome)
            print_queue(selection)
            failed = self._tell(points, set(new))
        return failed

    def _tell(self, points: Mapping[Trial, Point], fresh: set[str]) -> int:
        """Tell how trials ended, but those that a signal has left, and return how many failed."""
        failed = 0
        for trial, point in points.items():
            outcome = self._settled.get(point.config_hash)
            if outcome is None:
                continue
            if point.config_hash not in fresh or outcome.was_done:
                self._board.known(trial.number, outcome)
            fresh.discard(point.config_hash)
            without = self._study.tell(trial, outcome)
            if without is not None:
                self._board.say(f"trial {trial.number} ({outcome.entry.name}): {without}")
            failed += outcome.end == "failed" or without is not None
        return failed

    def _conclude(self) -> None:
        points = tuple(outcome.entry.point for outcome in self.outcomes)
        # A point that failed is run again alone, by the sweeper that searches nothing.
        command = tuple(one for one in self.plan.command if not one.startswith(_OF_THE_SEARCH))
        if not any(one.startswith("hydra/sweeper=") for one in self.plan.command):
            command = (*command, "hydra/sweeper=grid")  # a file has chosen the search
        if points:
            print_summary(replace(self.plan, points=points, command=command), self.outcomes)
        best, objectives = best_of(self._study), self._settings.objectives
        self._has_values = bool(best)
        print_best(best, objectives, self._study.name)
        write_results(best, self.plan.root / "optimization_results.yaml", len(objectives))


_OF_THE_SEARCH = ("hydra/sweeper", "hydra.sweeper")


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Keep other searches out of a directory.

    Raises:
        ConfigError: another process is at work there.
    """
    lock = FileLock(root / ".search.lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        sentence = f"another process is at work on the search in {root}"
        raise ConfigError.of("", f"{sentence}; allowed: one at a time") from None
    with held:
        yield
