"""The trainer's own checkpoints and early stopping behind a gate."""

from contextlib import nullcontext as _nothing
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from coreai_opt.pruning.config import PolynomialDecaySchedule
from lightning_callbacks import ScheduledPruning, TargetGate
from tests.lightning_callbacks.helpers import (
    LIGHTNING_WARNINGS,
    ScriptedModule,
    loader,
    make_trainer,
    zeros,
)

pytestmark = LIGHTNING_WARNINGS


def checkpoint(root: Path, monitor: str | None = "val", **settings: Any) -> ModelCheckpoint:
    fixed: dict[str, Any] = {"filename": "{epoch}-{step}", "mode": "max"}
    return ModelCheckpoint(dirpath=root / "kept", monitor=monitor, **(fixed | settings))


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


@pytest.mark.parametrize("is_gated", [True, False], ids=["gate", "no gate"])
def test_best_and_last_of_an_app_hold_the_target(tmp_path: Path, is_gated: bool) -> None:
    # The ramp ends after 70 of 100; its last tenths of epochs score worst.
    ramp = PolynomialDecaySchedule(begin_step=10, total_iters=60)
    best = checkpoint(tmp_path, save_last=True)
    stop = EarlyStopping("val", mode="max", patience=3)
    gate = [TargetGate()] if is_gated else []
    pruning = ScheduledPruning(ramp, 0.95, interval="percent")
    module = ScriptedModule([0.9, 0.91, 0.8, 0.7, 0.6, 0.5, 0.4, 0.5, 0.45, 0.4])
    with pytest.warns(UserWarning, match="below the target") if not is_gated else _nothing():
        fit(tmp_path, best, stop, pruning, *gate, module=module, max_epochs=10)
    found = [sparsity_of(path) for path in (best.best_model_path, best.last_model_path)]
    if is_gated:
        # 121 of 128 and 60 of 64.
        assert found == [181 / 192, 181 / 192]
    else:
        assert max(found) < 0.5
