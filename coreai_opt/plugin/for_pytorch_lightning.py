"""The callback of a pruning job for a ``pytorch_lightning.Trainer``."""

import pytorch_lightning as pl

from coreai_opt.plugin import trainer_callbacks


class JobCallback(trainer_callbacks.JobCallback, pl.Callback):
    __doc__ = trainer_callbacks.JobCallback.__doc__
