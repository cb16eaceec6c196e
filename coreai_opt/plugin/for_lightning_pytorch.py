"""The callbacks of a job for a ``lightning.pytorch.Trainer``."""

import importlib
from typing import Any

from coreai_opt.plugin import trainer_callbacks
from coreai_opt.plugin.jobs import trainer_record, trainer_warmup

# As a value without types: the package need not be there where types are checked.
_Callback: Any = importlib.import_module("lightning.pytorch.callbacks").Callback


class JobCallback(trainer_callbacks.JobCallback, _Callback):  # type: ignore[misc]
    __doc__ = trainer_callbacks.JobCallback.__doc__


class RecordTrainer(trainer_record.RecordTrainer, _Callback):  # type: ignore[misc]
    __doc__ = trainer_record.RecordTrainer.__doc__


class SignalsWait(trainer_record.SignalsWait, _Callback):  # type: ignore[misc]
    __doc__ = trainer_record.SignalsWait.__doc__


class EndOfWarmup(trainer_warmup.EndOfWarmup, _Callback):  # type: ignore[misc]
    __doc__ = trainer_warmup.EndOfWarmup.__doc__
