"""A config that prunes every weight in a pattern."""

from typing import Any

from coreai_opt.pruning import MagnitudePrunerConfig
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig
from coreai_opt.pruning.spec import (
    PruningSpec,
)

Index = tuple[int, ...]


def config(scheme: Any, target: float = 0.5, schedule: Any = None) -> MagnitudePrunerConfig:
    spec = PruningSpec(target_sparsity=target, pruning_scheme=scheme)
    return MagnitudePrunerConfig(
        global_config=ModuleMagnitudePrunerConfig(
            op_state_spec={"*": spec}, sparsity_schedule=schedule
        )
    )
