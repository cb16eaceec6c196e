"""Config and example inputs: what ScheduledPruning is given, and what it finds in the module."""

from typing import Any

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.config.given import config_of
from lightning_callbacks._lightning.root import pl

__all__ = ["config_of", "example_inputs_of"]


def example_inputs_of(pl_module: pl.LightningModule) -> Any:
    """Return what the module's forward pass is followed on.

    Raises:
        PruningError: the module has no ``example_input_array``.
    """
    if pl_module.example_input_array is None:
        raise PruningError(
            "follow_calls needs an input to follow, and the module's example_input_array is "
            "None; set it in the module's constructor"
        )
    return pl_module.example_input_array
