"""Which callbacks a gate makes wait, and that it leaves them as it found them."""

import copy
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from coreai_opt.pruning import PruningError
from lightning_callbacks import TargetGate, TargetSparsityCheckpoint
from tests.helpers.gating import (
    BELOW,
    NOTHING_CHOSEN,
    below_target,
    checkpoint,
    fit,
    kept,
    stopping,
)
from tests.helpers.lightning import ScriptedModule, pruned_from


class Subclass(ModelCheckpoint):
    """Somebody's own."""


class Adding(ScriptedModule):
    """Its callbacks come from the module, and one more joins in the first epoch."""

    def __init__(self, own: list[pl.Callback], late: pl.Callback) -> None:
        super().__init__()
        self.own, self.late = own, late

    def configure_callbacks(self) -> list[pl.Callback]:
        return self.own

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 0:
            self.trainer.callbacks.append(self.late)


def test_whoever_adds_the_callbacks(tmp_path: Path) -> None:
    class Stops(EarlyStopping):
        pass

    best, late = checkpoint(tmp_path, kind=Subclass), checkpoint(tmp_path, filename="late-{step}")
    late.dirpath = str(tmp_path / "kept")
    stop = stopping(kind=Stops)
    fit(tmp_path, pruned_from(20), TargetGate(), module=Adding([best, stop], late), max_epochs=6)
    assert kept(tmp_path) == {"epoch=2-step=24", "late-step=24"}
    assert stop.stopped_epoch == 3


class Breaks(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        raise ZeroDivisionError


class Copies(pl.Callback):
    """Copies what is given to it when the first epoch ends."""

    def __init__(self, *originals: Any) -> None:
        self.originals, self.copies = originals, list[Any]()

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        assert all(set(METHODS) & vars(one).keys() for one in self.originals)
        self.copies += [copy.deepcopy(one) for one in self.originals]
        self.copies += [pickle.loads(pickle.dumps(one)) for one in self.originals]


METHODS = ("check_monitor_top_k", "_save_last_checkpoint", "_run_early_stopping_check")


@BELOW
@NOTHING_CHOSEN
@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_the_callbacks_are_as_before_when_the_fit_has_ended(tmp_path: Path, error: Any) -> None:
    best, stop, gate = checkpoint(tmp_path), stopping(), TargetGate()
    before = [vars(best).keys(), vars(stop).keys()]
    more = [Breaks()] if error else []
    broken = pytest.raises(error) if error else nullcontext()
    with broken:
        fit(tmp_path, best, stop, pruned_from(12), gate, *more)
    # Lightning itself adds these to every callback.
    assert [vars(one).keys() - {"log", "log_dict"} for one in (best, stop)] == [
        keys - {"log", "log_dict"} for keys in before
    ]
    assert gate._gated == {}


@BELOW
@NOTHING_CHOSEN
def test_a_copy_in_mid_training_has_its_own_methods(tmp_path: Path) -> None:
    best, stop, gate = checkpoint(tmp_path), stopping(), TargetGate()
    copies = Copies(best, stop)
    fit(tmp_path, best, stop, below_target(), gate, copies, max_epochs=1)
    for one in copies.copies:
        for name in METHODS:
            if hasattr(one, name):
                method = getattr(one, name)
                assert method.__self__ is one
                assert method.__func__ is getattr(type(one), name)
    assert pickle.loads(pickle.dumps(gate)).state_dict() == gate.state_dict()


def test_a_lightning_without_the_private_names_is_refused(tmp_path: Path) -> None:
    best = checkpoint(tmp_path)
    del best._last_global_step_saved
    with pytest.raises(PruningError, match="ModelCheckpoint has no _last_global_step_saved,"):
        fit(tmp_path, pruned_from(12), TargetGate(), best)


def test_ours_wait_by_themselves(tmp_path: Path) -> None:
    ours = checkpoint(tmp_path, kind=TargetSparsityCheckpoint)
    gate = TargetGate()
    fit(tmp_path, ours, pruned_from(12), gate)
    assert kept(tmp_path) == {"epoch=1-step=16"}
    assert gate.state_dict()["opened"] == {}
