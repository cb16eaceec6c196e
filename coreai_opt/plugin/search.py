"""Searches in any app: ``hydra/sweeper=coreai_optuna``; imports Optuna once it is chosen."""

from coreai_opt.config.errors import Problem
from coreai_opt.plugin.sweeps import OfAnyApp
from coreai_opt.sweep.search.sweeper import SearchSweeps


class AnySearch(OfAnyApp, SearchSweeps):
    """Lets Optuna choose the points, in an app of somebody else."""

    def preview(self) -> list[Problem]:
        """Print what is searched: the points are not known before."""
        from coreai_opt.sweep.preview.search_space import search_space
        from coreai_opt.sweep.preview.show import show_space

        planner, plan = self._planner, self.sweep_run.plan
        show_space(search_space(planner, self._loader, plan.root), planner.told([]))
        return self.sweep_run.folder.problems(plan)
