"""An app's own checkpoints and early stopping, beside a pruning and a gate."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import ScriptedModule, loader, make_trainer, zeros

BELOW = pytest.mark.filterwarnings("ignore:the training ended at .* below the target sparsity")
NOTHING_CHOSEN = pytest.mark.filterwarnings("ignore:ModelCheckpoint.* ha.* chosen nothing")


def checkpoint(root: Path, monitor: str | None = "val", kind: Any = None, **settings: Any) -> Any:
    fixed: dict[str, Any] = {"filename": "{epoch}-{step}", "mode": "max"}
    kind = kind or ModelCheckpoint
    return kind(dirpath=root / "kept", monitor=monitor, **(fixed | settings))


def stopping(monitor: str = "val", kind: Any = EarlyStopping, **settings: Any) -> Any:
    return kind(monitor, **({"mode": "max", "patience": 1} | settings))


def fit(root: Path, *callbacks: pl.Callback, module: Any = None, **settings: Any) -> pl.Trainer:
    settings = {"max_epochs": 4, "enable_checkpointing": True, **settings}
    trainer = make_trainer(root, *callbacks, **settings)
    trainer.fit(module or ScriptedModule(), loader(), loader(2))
    return trainer


def kept(root: Path) -> set[str]:
    return {path.stem for path in (root / "kept").glob("*.ckpt")}


def sparsity_of(path: str | Path) -> float:
    """Return the share of zeros in the two weights of a checkpoint, counted by stock torch."""
    state = torch.load(path, weights_only=True)["state_dict"]
    weights = torch.cat([state["first.weight"].flatten(), state["second.weight"].flatten()])
    return zeros(weights)


class NeverAtTarget:
    """A schedule that stays at half of the target."""

    def compute_sparsity(self, step: int, target: float, prev: float | None = None) -> float:
        return target / 2


def below_target() -> ScheduledPruning:
    return ScheduledPruning(NeverAtTarget(), 0.5)
