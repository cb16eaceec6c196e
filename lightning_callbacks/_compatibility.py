"""Compatibility of pruning with the strategy and the other callbacks of a trainer."""

from coreai_opt.pruning import PruningError
from lightning_callbacks._lightning import pl
from lightning_callbacks._roots import ROOTS, kinds_of_root

__all__ = ["refuse_other_pruners", "refuse_sharding"]

# Callbacks that prune, by the packages that they come from.
PRUNERS = {"ScheduledPruning": ("lightning_callbacks",), "ModelPruning": ROOTS}

SHARDED = ("DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy")


def refuse_sharding(trainer: pl.Trainer) -> None:
    """Refuse a strategy that gives a rank a part of a tensor.

    Raises:
        PruningError: it names the strategy.
    """
    sharded = kinds_of_root(trainer, "strategies", *SHARDED)
    if isinstance(trainer.strategy, sharded):
        raise PruningError(
            f"{type(trainer.strategy).__name__} shards the weights, and a mask needs the whole "
            "tensor; allowed: one device, or ddp"
        )


def refuse_other_pruners(callback: pl.Callback, trainer: pl.Trainer) -> None:
    """Refuse a second callback that prunes the same module.

    Raises:
        PruningError: it names both.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for other in callbacks:
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
