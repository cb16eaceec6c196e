"""Agreement of ranks on masks and on optimizer steps."""

from collections.abc import Sequence

import torch
from torch import nn

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.masks.agreement import compare_masks, of_all_ranks
from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning.roots import of_root


class StepMismatchError(PruningError):
    """The processes of a training have not made the same number of optimizer steps.

    Attributes:
        steps: optimizer steps that have changed the schedule's clock, by rank.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = list(steps)
        counts = ", ".join(f"{count} on rank {rank}" for rank, count in enumerate(steps))
        super().__init__(
            f"the processes have not made the same optimizer steps: {counts}; allowed: a module "
            "that steps its optimizers in the same batches on every rank"
        )


def check_masks(trainer: pl.Trainer, model: nn.Module, when: str) -> None:
    """Compare the masks of all ranks, which call this at the same place; see ``compare_masks``.

    With one process nothing is computed.
    """
    if trainer.world_size > 1:
        compare_masks(model, when, trainer.strategy.root_device)


def may_step_apart(pl_module: pl.LightningModule) -> bool:
    """Return whether a module decides itself when its optimizers step.

    Otherwise all ranks step alike: they have the same gradients, so that a gradient scaler skips a
    step on all of them or on none, and Lightning refuses a batch without a loss.
    """
    is_overridden = of_root(pl_module, "utilities.model_helpers", "is_overridden")
    return not pl_module.automatic_optimization or is_overridden("optimizer_step", pl_module)


def check_steps(trainer: pl.Trainer, finished: int) -> None:
    """Compare the optimizer steps of all ranks, which call this at the same place.

    Where they differ all ranks raise: those that change their masks would wait for the others for
    ever.
    """
    if trainer.world_size == 1:
        return
    own = torch.tensor([finished], device=trainer.strategy.root_device)
    steps = [count for (count,) in of_all_ranks(own)]
    if len(set(steps)) > 1:
        raise StepMismatchError(steps)
