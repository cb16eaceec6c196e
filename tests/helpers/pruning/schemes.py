"""A config that prunes every weight in a pattern."""

from typing import Any

from coreai_opt.pruning import MagnitudePrunerConfig
from tests.helpers.pruning import asking

Index = tuple[int, ...]


def config(scheme: Any, target: float = 0.5, schedule: Any = None) -> MagnitudePrunerConfig:
    return asking(schedule, target_sparsity=target, pruning_scheme=scheme)
