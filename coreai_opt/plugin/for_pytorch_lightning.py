"""The callbacks of a job for a ``pytorch_lightning.Trainer``."""

import pytorch_lightning as pl

from coreai_opt.plugin import trainer_callbacks
from coreai_opt.plugin.jobs import trainer_record, trainer_warmup


class JobCallback(trainer_callbacks.JobCallback, pl.Callback):
    __doc__ = trainer_callbacks.JobCallback.__doc__


class RecordTrainer(trainer_record.RecordTrainer, pl.Callback):
    __doc__ = trainer_record.RecordTrainer.__doc__


class SignalsWait(trainer_record.SignalsWait, pl.Callback):
    __doc__ = trainer_record.SignalsWait.__doc__


class EndOfWarmup(trainer_warmup.EndOfWarmup, pl.Callback):
    __doc__ = trainer_warmup.EndOfWarmup.__doc__
