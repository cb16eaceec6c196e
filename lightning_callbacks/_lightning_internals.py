"""Private names of Lightning that the callbacks read or set, each looked for before it is used.

They are there in Lightning 2.2.5, 2.4.0 and 2.6.6, in both of its roots.
"""

from pathlib import Path
from typing import Any

from coreai_opt.pruning import PruningError
from lightning_callbacks._lightning.root import pl

__all__ = [
    "CHECK_OF_STOPPING",
    "SAVING_OF_LAST",
    "count_as_saved",
    "forget_link",
    "require_private",
    "save_last",
]

CHECK_OF_STOPPING = "_run_early_stopping_check"
SAVING_OF_LAST = "_save_last_checkpoint"

OF_CHECKPOINT = (
    SAVING_OF_LAST,
    "_last_checkpoint_saved",
    "_last_global_step_saved",
    "_monitor_candidates",
)
OF_STOPPING = (CHECK_OF_STOPPING,)


def require_private(callback: object) -> None:
    """Look for the private names of a ``ModelCheckpoint`` or an ``EarlyStopping``.

    Raises:
        PruningError: one is not there.
    """
    # A name of the class cannot be assigned by mistake; those of the checkpoint are of instances.
    names = OF_CHECKPOINT if hasattr(callback, "best_model_path") else OF_STOPPING
    for name in names:
        if not hasattr(callback, name):
            raise PruningError(
                f"{type(callback).__name__} has no {name}, so that it cannot be made to wait for "
                "the target sparsity; allowed: Lightning 2.2 to 2.6, whose __init__ it calls, or "
                "a trainer without TargetGate"
            )


def count_as_saved(checkpoint: Any, step: int) -> None:
    """Make a checkpoint write its last state at a step at which it has chosen none as best.

    Lightning 2.6 writes it only at steps at which it has written another.
    """
    checkpoint._last_global_step_saved = step


def forget_link(checkpoint: Any, trainer: pl.Trainer) -> None:
    """Make a checkpoint with ``save_last="link"`` write a file, because there is none to link to.

    The file takes the place of a link, and does not go through it.
    """
    checkpoint._last_checkpoint_saved = ""
    last = Path(checkpoint.last_model_path)
    if trainer.is_global_zero and last.is_symlink():
        last.unlink()


def save_last(checkpoint: Any, trainer: pl.Trainer) -> None:
    """Write the last state of a checkpoint that is to keep it, unless that is written already."""
    if checkpoint._last_global_step_saved != trainer.global_step:
        checkpoint._save_last_checkpoint(trainer, checkpoint._monitor_candidates(trainer))
