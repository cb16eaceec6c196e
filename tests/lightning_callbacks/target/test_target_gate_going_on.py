"""Scores of a checkpoint that a gated training goes on from: whether they still count."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_callbacks import ScheduledPruning, TargetGate, TargetSparsityCheckpoint
from tests.helpers.lightning import ScriptedModule, linear_ramp, loader, make_trainer, zeros

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]

# The dense epochs score best, and those at target better with each.
SCORES = [0.9, 0.95, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6]


class App:
    """An app that keeps its best by a metric, and stops early."""

    def __init__(self, root: Path, *callbacks: pl.Callback, epochs: int, patience: int = 2) -> None:
        self.best = ModelCheckpoint(
            root / "kept", "{epoch}", monitor="val", mode="max", save_last=True
        )
        self.stop = EarlyStopping("val", mode="max", patience=patience)
        self.trainer = make_trainer(
            root,
            self.best,
            self.stop,
            *callbacks,
            max_epochs=epochs,
            enable_checkpointing=True,
        )

    def fit(self, path: str | Path | None = None, scores: list[float] = SCORES) -> "App":
        self.module = ScriptedModule(scores)
        self.trainer.fit(self.module, loader(), loader(2), ckpt_path=path)
        return self

    @property
    def chosen(self) -> str:
        return Path(self.best.best_model_path).stem


def pruned(target: float = 0.5, steps: int = 12) -> list[pl.Callback]:
    return [ScheduledPruning(linear_ramp(steps), target), TargetGate()]


@pytest.mark.parametrize("is_gated", [True, False], ids=["gate", "no gate"])
def test_a_dense_best_does_not_count_for_the_pruned_model(tmp_path: Path, is_gated: bool) -> None:
    # The same directory: Lightning restores all of its scores.
    dense = App(tmp_path, epochs=2).fit()
    assert dense.chosen == "epoch=1"
    app = App(tmp_path, *pruned()[: 1 + is_gated], epochs=7)
    if is_gated:
        app.fit(dense.best.last_model_path)
        assert (app.chosen, app.trainer.current_epoch) == ("epoch=6", 7)
        assert float(app.best.best_model_score) == pytest.approx(0.5)
        assert zeros(torch.load(app.best.best_model_path)["state_dict"]["first.weight"]) == 0.5
        assert (tmp_path / "kept" / "epoch=1.ckpt").exists()
    else:
        # Stopped in the middle of the ramp, with the dense epoch as the best.
        app.fit(dense.best.last_model_path)
        assert (app.chosen, app.stop.stopped_epoch) == ("epoch=1", 3)


def test_what_is_dense_is_not_the_best_while_the_gate_is_closed(tmp_path: Path) -> None:
    dense = App(tmp_path, epochs=2).fit()
    app = App(tmp_path, *pruned(steps=24), epochs=7).fit(dense.best.last_model_path)
    state = torch.load(app.best.best_model_path, weights_only=True)["callbacks"]
    assert state["TargetGate"]["opened"].keys() == {app.best.state_key, app.stop.state_key}
    assert list(state[app.best.state_key]["best_k_models"]) == [app.best.best_model_path]


def test_a_pruned_training_keeps_its_scores(tmp_path: Path) -> None:
    scores = [0.9, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1]
    first = App(tmp_path, *pruned(steps=10), epochs=3, patience=3).fit(scores=scores)
    assert (first.chosen, first.stop.wait_count) == ("epoch=1", 1)
    newest = torch.load(first.best.last_model_path, weights_only=True)
    # The last state is written when a best is: going on from it repeats epoch 2.
    assert newest["callbacks"]["TargetGate"]["opened"][first.best.state_key] == 96
    app = App(tmp_path, *pruned(steps=10), epochs=7, patience=3)
    app.fit(first.best.last_model_path, scores)
    assert (app.chosen, app.stop.stopped_epoch) == ("epoch=1", 4)
    assert float(app.best.best_model_score) == pytest.approx(0.5)


@pytest.mark.parametrize("target", [0.5, 0.75])
def test_scores_at_another_target_do_not_count(tmp_path: Path, target: float) -> None:
    scores = [0.9, 0.5, 0.3, 0.2, 0.1]
    first = App(tmp_path, *pruned(steps=10), epochs=2).fit(scores=scores)
    app = App(tmp_path, *pruned(target, steps=10), epochs=4, patience=9)
    app.fit(first.best.last_model_path, scores)
    assert app.chosen == ("epoch=1" if target == 0.5 else "epoch=2")


def test_a_pruned_checkpoint_without_a_gate_is_read(tmp_path: Path) -> None:
    first = App(tmp_path, pruned(steps=10)[0], epochs=3, patience=9).fit()
    app = App(tmp_path, *pruned(steps=10), epochs=5, patience=9).fit(first.best.best_model_path)
    # Epoch 1 scored better, and nothing says that it was at target then.
    assert (first.chosen, app.chosen) == ("epoch=1", "epoch=2")


def test_the_gate_of_an_object_forgets_with_the_checkpoint(tmp_path: Path) -> None:
    pruning, gate = pruned(steps=10)
    App(tmp_path / "a", pruning, gate, epochs=3).fit()
    assert len(gate.state_dict()["opened"]) == 2
    dense = App(tmp_path / "b", epochs=2).fit()
    app = App(tmp_path / "b", pruned(steps=10)[0], gate, epochs=6).fit(dense.best.best_model_path)
    assert app.chosen == "epoch=5"


def test_a_dense_training_with_a_gate_opens_nothing(tmp_path: Path) -> None:
    dense = App(tmp_path, TargetGate(), epochs=2).fit()
    assert dense.chosen == "epoch=1"
    again = App(tmp_path, TargetGate(), epochs=3).fit(dense.best.last_model_path)
    assert again.chosen == "epoch=1"
    app = App(tmp_path, *pruned(), epochs=7).fit(dense.best.last_model_path)
    assert app.chosen == "epoch=6"


def test_the_state_goes_through_a_checkpoint() -> None:
    gate = TargetGate()
    state = gate.state_dict()
    state["measured"] |= {"epoch": True, "last_epoch": False, "of_validation": ["val"]}
    state["opened"] = {"ModelCheckpoint": 96}
    gate.load_state_dict(state)
    assert gate.state_dict() == state
    gate.load_state_dict({})
    assert gate.state_dict()["opened"] == {}


def test_states_of_former_versions_are_read() -> None:
    gate = {
        "_epoch_at_target": True,
        "_last_epoch_at_target": False,
        "_validated_at_target": True,
        "_monitors_validation": True,
        "_last_validated": 0.5,
    }
    callback = TargetSparsityCheckpoint(monitor="val")
    former: dict[str, Any] = callback.state_dict()
    del former["measured"]
    callback.load_state_dict(former | {"gate": gate})
    assert callback.state_dict()["measured"] == {
        "epoch": True,
        "last_epoch": False,
        "validation": True,
        "last_validated": 0.5,
        "of_validation": ["val"],
    }
