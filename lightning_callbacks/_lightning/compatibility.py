"""Compatibility of pruning with the strategy, optimizers and callbacks of a trainer."""

from typing import Any

from coreai_opt.pruning import PruningError
from coreai_opt.pruning._text import listed
from coreai_opt.pruning.errors import PreparationWarning
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks._lightning.root import pl, rank_zero_warn
from lightning_callbacks._lightning.roots import ROOTS, callbacks_of, kinds_of_root

# Callbacks that prune, by the packages that they come from.
PRUNERS = {"ScheduledPruning": ("lightning_callbacks",), "ModelPruning": ROOTS}

SHARDED = ("DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy")


def refuse_sharding(trainer: pl.Trainer) -> None:
    """Refuse a strategy that gives a rank a part of a tensor."""
    sharded = kinds_of_root(trainer, "strategies", *SHARDED)
    if isinstance(trainer.strategy, sharded):
        raise PruningError(
            f"{type(trainer.strategy).__name__} shards the weights, and a mask needs the whole "
            "tensor; allowed: one device, or ddp"
        )


def warn_of_untrained(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Name the pruned weights that no optimizer has: those of a teacher, say, or of a loss.

    A module that trains without optimizers of Lightning's is left alone.
    """
    optimizers: list[Any] = trainer.optimizers
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    optimized = {id(one) for group in groups for one in group["params"]}
    names = [
        one.name
        for one in pruned_tensors(pl_module)
        if one.original.requires_grad and id(one.original) not in optimized
    ]
    if optimized and names:
        rank_zero_warn(
            f"no optimizer has {len(names)} of the pruned weights ({listed(names)}), and they are "
            "pruned all the same; allowed: requires_grad_(False) on what is not trained, as a "
            "teacher, or to leave it dense by its name",
            category=PreparationWarning,
        )


def refuse_other_pruners(callback: pl.Callback, trainer: pl.Trainer) -> None:
    """Refuse a second callback that prunes the same module."""
    for other in callbacks_of(trainer):
        if other is not callback and _prunes(other):
            name, own = type(other).__name__, type(callback).__name__
            which = f"two {own}" if name == own else f"{own} and {name}"
            raise PruningError(
                f"{which} among the callbacks would both prune the module: one of the two has to "
                "go; layers that differ are a matter of config=, not of a second callback"
            )


def _prunes(callback: pl.Callback) -> bool:
    return any(
        kind.__name__ == name and kind.__module__.startswith(packages)
        for kind in type(callback).__mro__
        for name, packages in PRUNERS.items()
    )
