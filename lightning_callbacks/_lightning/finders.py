"""Support for Lightning's LearningRateFinder and BatchSizeFinder in a resumed fit.

A finder trains a trial when the fit begins, and puts back the state of before from a checkpoint of
its own. Lightning then has forgotten the checkpoint that the fit was to go on from, and trains its
weights anew from step 0.
"""

from typing import Any

from coreai_opt.pruning import PruningError
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.root import pl, rank_zero_warn
from lightning_callbacks._lightning.roots import callbacks_of, kinds_of_root, of_root
from lightning_callbacks._lightning_internals import finder_attribute
from lightning_callbacks._resume.dataloader_state import InexactResumeWarning

FINDERS = ("LearningRateFinder", "BatchSizeFinder")

# Where a LearningRateFinder that is given no name looks for the learning rate.
LEARNING_RATES = ("lr", "learning_rate")


def found_values(trainer: pl.Trainer) -> dict[str, float]:
    """Return the attributes of module and data that the trainer's finders set, by their names."""
    values: dict[str, float] = {}
    for finder in _finders(trainer):
        for name in _names(finder):
            if _attributes(trainer, "hasattr")(trainer.lightning_module, name):
                value = _attributes(trainer, "getattr")(trainer.lightning_module, name)
                if isinstance(value, int | float):
                    values[name] = value
                break
    return values


def keep_found_values(trainer: pl.Trainer, values: dict[str, float], hooks: MethodPatches) -> None:
    """Give module and data what was found when the training began, and run no other trial then.

    Warn of a finder of the user's own, which runs its trials at other times: one at the begin of an
    epoch meets an iterator that is at its end; a resumed one meets a new one.
    """
    kinds = kinds_of_root(trainer, "callbacks", *FINDERS)
    for finder in _finders(trainer):
        hooks.instead(finder, "on_fit_start", lambda *args: None)
        if not any(type(finder).on_fit_start is kind.on_fit_start for kind in kinds):
            rank_zero_warn(
                f"{type(finder).__name__} runs trials of its own: one at the beginning of the "
                "epoch with which the training goes on is not repeated exactly",
                category=InexactResumeWarning,
            )
    for name, value in values.items():
        _attributes(trainer, "setattr")(trainer.lightning_module, name, value)


def refuse_lost_checkpoint(trainer: pl.Trainer, step: int | None) -> None:
    """Refuse to train when Lightning has forgotten the checkpoint that the fit goes on from.

    Asked when the training begins, with the step of the checkpoint that was loaded first, if any.
    """
    if step is None or trainer.global_step == step:
        return
    names = " and ".join(type(finder).__name__ for finder in _finders(trainer)) or "a callback"
    raise PruningError(
        f"the fit was to go on from step {step} of its checkpoint and would begin at step "
        f"{trainer.global_step}: {names} has run a trial, after which Lightning forgets the "
        "checkpoint; allowed: to go on without it (the optimizer's learning rate is in the "
        "checkpoint), a ResumableCheckpoint among the callbacks, or a new fit"
    )


def _finders(trainer: pl.Trainer) -> list[Any]:
    return callbacks_of(trainer, *FINDERS)


def _names(finder: Any) -> tuple[str, ...]:
    name = finder_attribute(finder)
    return (name,) if name else LEARNING_RATES


def _attributes(trainer: pl.Trainer, what: str) -> Any:
    """Return Lightning's access to attributes of module, hyperparameters or data module."""
    return of_root(trainer, "utilities.parsing", f"lightning_{what}")
