"""SparsityProgressBar: a progress bar with the sparsity now and its target."""

from typing import TYPE_CHECKING, Any

from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning.roots import callbacks_of, require_one_root
from lightning_callbacks.sparsity_monitor import SparsityMonitor

# In front of the progress bar of either root.
if TYPE_CHECKING:
    _Bar = pl.callbacks.RichProgressBar
else:
    _Bar = object


class SparsityColumn(_Bar):
    """Adds the sparsity to what a progress bar shows."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_one_root(self, trainer)
        super().setup(trainer, pl_module, stage)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        metrics.pop("sparsity", None)
        if (report := _last_report(trainer)) is not None:
            metrics["sparsity"] = f"{report.achieved:.3f}/{report.target:.3g}"
        return metrics


class SparsityProgressBar(SparsityColumn, pl.callbacks.RichProgressBar):
    """Lightning's ``RichProgressBar`` with the column ``sparsity=now/target``.

    The numbers come from the ``SparsityMonitor`` of the same trainer; without one there is no
    such column. Arguments are those of ``RichProgressBar``.
    """


def _last_report(trainer: pl.Trainer) -> Any:
    monitors = (one for one in callbacks_of(trainer) if isinstance(one, SparsityMonitor))
    return next((monitor.report for monitor in monitors), None)
