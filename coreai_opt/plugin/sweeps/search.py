"""Searches in any app: ``hydra/sweeper=coreai_optuna``; imports Optuna once it is chosen."""

from coreai_opt.config.errors import Problem
from coreai_opt.plugin.sweeps.sweepers import OfAnyApp
from coreai_opt.sweep.search.sweeper import SearchSweeps


class AnySearch(OfAnyApp, SearchSweeps):
    """Lets Optuna choose the points, in an app of somebody else."""

    def preview(self) -> list[Problem]:
        """Print what is searched, and how long that takes: the points are not known before."""
        from coreai_opt.plugin.sweeps.forecast import AnyForecast
        from coreai_opt.sweep.preview.search_space import search_space
        from coreai_opt.sweep.preview.show import show_space, time_of_search

        planner, plan = self._planner, self.sweep_run.plan
        space = search_space(planner, self._loader, plan.root)
        forecast = AnyForecast(plan, self.app.name)
        told = time_of_search(space, *forecast.of_any_run(), forecast.of_what)
        show_space(space, [*planner.told([]), told])
        return self.sweep_run.folder.problems(plan)
