"""Content of checkpoints: tensors and plain values alone are read.

Unpickling anything else runs code that the file names.
"""

from pathlib import Path

import pytorch_lightning as pl
from omegaconf import Container, OmegaConf
from pytorch_lightning.utilities import rank_zero_warn

from coreai_opt.config.errors import ConfigError
from lightning_callbacks._resume.unsafe_globals import (
    ForeignObjectsWarning,
    foreign_in_file,
    foreign_in_value,
)

HYPERPARAMETERS = pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY
THEIR_TYPE = pl.LightningModule.CHECKPOINT_HYPER_PARAMS_TYPE

# Made anew from the config whenever a run builds its model: nobody misses them.
OFFERED = ("optimizer", "lr_schedule")


class PlainHyperparameters(pl.Callback):
    """Leaves out of checkpoints the hyperparameters that could not be loaded from them.

    A module that calls ``save_hyperparameters()`` keeps the optimizer that a run offers it as well,
    which is a function. One warning names what is left out, except for the config's own values.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        values = checkpoint.get(HYPERPARAMETERS)
        if isinstance(values, Container):
            values = OmegaConf.to_container(values)
            checkpoint.pop(THEIR_TYPE, None)
        if not isinstance(values, dict):
            return
        foreign = {
            name: found for name, value in values.items() if (found := foreign_in_value(value))
        }
        checkpoint[HYPERPARAMETERS] = {
            name: value for name, value in values.items() if name not in foreign
        }
        for name in foreign.keys() - self._said - set(OFFERED):
            self._said.add(name)
            rank_zero_warn(
                f"checkpoints do not keep the hyperparameter {name!r} "
                f"({', '.join(foreign[name])}): only tensors and plain values are read from them",
                category=ForeignObjectsWarning,
            )


def refuse_foreign(path: str | Path, name: str) -> None:
    """Raise a ``ConfigError`` for a checkpoint that holds more than tensors and plain values.

    Args:
        path: the file.
        name: the key of the config that has led to it, for the message.
    """
    if foreign := foreign_in_file(path):
        raise ConfigError.of(
            name,
            f"the checkpoint {path} holds more than tensors and plain values "
            f"({', '.join(foreign)}), and that is not unpickled; allowed: to leave it out of what "
            "the model and its callbacks save, or to name it in the model's module, "
            "torch.serialization.add_safe_globals([CLASS])",
        )
