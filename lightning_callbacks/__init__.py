"""Lightning callbacks: adapters from the hooks of Lightning to coreai_opt.pruning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .progress_bar import SparsityProgressBar
    from .pruned_weights import PrunedWeights
    from .resumable_checkpoint import ResumableCheckpoint
    from .scheduled_pruning import ScheduledPruning
    from .sparsity_monitor import SparsityMonitor
    from .target_gate import TargetGate
    from .target_sparsity import TargetSparsityCheckpoint, TargetSparsityEarlyStopping

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
        ".progress_bar": ["SparsityProgressBar"],
        ".pruned_weights": ["PrunedWeights"],
        ".resumable_checkpoint": ["ResumableCheckpoint"],
        ".scheduled_pruning": ["ScheduledPruning"],
        ".sparsity_monitor": ["SparsityMonitor"],
        ".target_gate": ["TargetGate"],
        ".target_sparsity": ["TargetSparsityCheckpoint", "TargetSparsityEarlyStopping"],
    },
)
