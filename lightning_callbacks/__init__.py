"""Lightning callbacks: adapters from the hooks of Lightning to coreai_opt.pruning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .progress_bar import SparsityProgressBar as SparsityProgressBar
    from .pruned_weights import PrunedWeights as PrunedWeights
    from .resumable_checkpoint import ResumableCheckpoint as ResumableCheckpoint
    from .scheduled_pruning import ScheduledPruning as ScheduledPruning
    from .sparsity_monitor import SparsityMonitor as SparsityMonitor
    from .target_gate import TargetGate as TargetGate
    from .target_sparsity import TargetSparsityCheckpoint as TargetSparsityCheckpoint
    from .target_sparsity import TargetSparsityEarlyStopping as TargetSparsityEarlyStopping

__all__ = [
    "PrunedWeights",
    "ResumableCheckpoint",
    "ScheduledPruning",
    "SparsityMonitor",
    "SparsityProgressBar",
    "TargetGate",
    "TargetSparsityCheckpoint",
    "TargetSparsityEarlyStopping",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "PrunedWeights": ".pruned_weights",
        "ResumableCheckpoint": ".resumable_checkpoint",
        "ScheduledPruning": ".scheduled_pruning",
        "SparsityMonitor": ".sparsity_monitor",
        "SparsityProgressBar": ".progress_bar",
        "TargetGate": ".target_gate",
        "TargetSparsityCheckpoint": ".target_sparsity",
        "TargetSparsityEarlyStopping": ".target_sparsity",
    },
)
