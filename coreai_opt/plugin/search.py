"""Searches in any app: ``hydra/sweeper=coreai_optuna``; imports Optuna once it is chosen."""

from coreai_opt.plugin.sweeps import OfAnyApp
from coreai_opt.sweep.search.sweeper import SearchSweeps


class AnySearch(OfAnyApp, SearchSweeps):
    """Lets Optuna choose the points, in an app of somebody else."""
