"""Any Hydra app: pruning by ``+prune=poly``, sweeps by ``hydra/sweeper=grid``, ``+record=on``."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .job import PruneJob
    from .jobs.record_run import RecordRun
    from .jobs.resumable import Resumable

__all__ = ["PruneJob", "RecordRun", "Resumable"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {".job": ["PruneJob"], ".jobs.record_run": ["RecordRun"], ".jobs.resumable": ["Resumable"]},
)
