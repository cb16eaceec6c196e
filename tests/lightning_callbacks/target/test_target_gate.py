"""The trainer's own checkpoints and early stopping behind a gate."""

import copy
import datetime
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from coreai_opt.pruning.config import PolynomialDecaySchedule
from lightning_callbacks import (
    PrunedWeights,
    ScheduledPruning,
    TargetGate,
    TargetSparsityCheckpoint,
    TargetSparsityEarlyStopping,
)
from lightning_callbacks.target_sparsity import NothingAtTargetWarning
from tests.helpers.gating import (
    BELOW,
    NOTHING_CHOSEN,
    below_target,
    checkpoint,
    fit,
    kept,
    sparsity_of,
    stopping,
)
from tests.helpers.lightning import WORSENING, ScriptedModule, pruned_from, zeros


@pytest.mark.parametrize("is_gated", [True, False], ids=["gate", "no gate"])
def test_best_and_last_of_an_app_hold_the_target(tmp_path: Path, is_gated: bool) -> None:
    # The ramp ends after 70 of 100; its last tenths of epochs score worst.
    ramp = PolynomialDecaySchedule(begin_step=10, total_iters=60)
    best = checkpoint(tmp_path, save_last=True)
    stop = stopping(patience=3)
    gate = [TargetGate()] if is_gated else []
    pruning = ScheduledPruning(ramp, 0.95, interval="percent")
    module = ScriptedModule([0.9, 0.91, 0.8, 0.7, 0.6, 0.5, 0.4, 0.5, 0.45, 0.4])
    warned = nullcontext() if is_gated else pytest.warns(UserWarning, match="below the target")
    with warned:
        fit(tmp_path, best, stop, pruning, *gate, module=module, max_epochs=10)
    found = [sparsity_of(path) for path in (best.best_model_path, best.last_model_path)]
    if is_gated:
        # 121 of 128 and 60 of 64.
        assert found == [181 / 192, 181 / 192]
        assert float(best.best_model_score) == pytest.approx(0.5)
    else:
        # Lightning before 2.6 writes the last one in every epoch.
        assert found[0] < 0.5


AT_ONCE = datetime.timedelta(microseconds=1)
CHOOSING: list[tuple[int, dict[str, Any]]] = [
    (12, {"monitor": "val"}),
    (12, {"monitor": "train", "save_top_k": 2}),
    (9, {"monitor": "val", "mode": "min", "save_top_k": -1}),
    (17, {"monitor": "val", "save_on_train_epoch_end": True, "save_top_k": -1}),
    (9, {"monitor": "val", "every_n_train_steps": 2, "save_top_k": -1}),
    (
        9,
        {
            "monitor": "val",
            "train_time_interval": datetime.timedelta(microseconds=1),
            "save_top_k": -1,
        },
    ),
]


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # before it is validated
@pytest.mark.parametrize(
    ("begin", "settings", "every_epoch"),
    [
        pytest.param(*chosen, 1 + index % 2, marks=[pytest.mark.slow] * (index in (0, 2, 4)))
        for index, chosen in enumerate(CHOOSING)
    ],
    ids=str,
)
def test_the_trainer_s_own_chooses_as_ours_does(
    tmp_path: Path, begin: int, settings: dict[str, Any], every_epoch: int
) -> None:
    kinds = {"own": ModelCheckpoint, "ours": TargetSparsityCheckpoint}
    saving = {n: checkpoint(tmp_path / n, kind=kind, **settings) for n, kind in kinds.items()}
    for name, callback in saving.items():
        gate = [TargetGate()] if name == "own" else []
        settings = {"check_val_every_n_epoch": every_epoch}
        fit(tmp_path / name, callback, *gate, pruned_from(begin), **settings)
    assert kept(tmp_path / "own") == kept(tmp_path / "ours") != set()
    own, ours = (dict(each.best_k_models.items()) for each in saving.values())
    assert sorted(map(float, own.values())) == sorted(map(float, ours.values()))


@pytest.mark.parametrize(
    ("monitor", "begin", "every_epoch", "epoch"),
    [
        ("val", 0, 1, 1),
        ("val", 16, 1, 2),
        ("val", 17, 1, 3),
        ("val", 17, 2, 5),
        ("train", 16, 1, 3),
        ("train", 17, 1, 4),
    ],
)
def test_patience_begins_at_the_target(
    tmp_path: Path, monitor: str, begin: int, every_epoch: int, epoch: int
) -> None:
    own, ours = stopping(monitor), stopping(monitor, TargetSparsityEarlyStopping)
    # Before the gate in the list, and behind it.
    gate, pruning = TargetGate(), pruned_from(begin)
    for order in ([own, pruning, gate], [gate, pruning, own], [pruning, ours]):
        fit(
            tmp_path,
            *order,
            max_epochs=6,
            enable_checkpointing=False,
            check_val_every_n_epoch=every_epoch,
        )
        assert [one.stopped_epoch for one in order if isinstance(one, EarlyStopping)] == [epoch]
        own.wait_count, own.best_score, gate._opened = 0, torch.tensor(-torch.inf), {}
        own.stopped_epoch = 0


@BELOW
@NOTHING_CHOSEN
@pytest.mark.parametrize("is_checked", [True, False])
def test_a_metric_that_is_not_finite_ends_the_training_below_the_target(
    tmp_path: Path, is_checked: bool
) -> None:
    stop = stopping(check_finite=is_checked)
    module = ScriptedModule([0.9, float("nan"), 0.7, 0.6])
    trainer = fit(tmp_path, stop, below_target(), TargetGate(), module=module)
    assert trainer.global_step == (16 if is_checked else 32)
    assert (stop.wait_count, float(stop.best_score)) == (0, -torch.inf)


@pytest.mark.parametrize(
    ("thresholds", "epoch"),
    [({"stopping_threshold": 0.1}, 2), ({"divergence_threshold": 0.95}, 2), ({}, 3)],
)
def test_thresholds_act_at_the_target_alone(
    tmp_path: Path, thresholds: dict[str, float], epoch: int
) -> None:
    stop = stopping(**thresholds)
    fit(tmp_path, stop, pruned_from(17), TargetGate(), max_epochs=6)
    assert stop.stopped_epoch == epoch


@BELOW
@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
@pytest.mark.parametrize("with_weights", [True, False])
@pytest.mark.parametrize("settings", [{}, {"every_n_train_steps": 2}], ids=["epochs", "steps"])
def test_a_target_that_is_never_reached(
    tmp_path: Path, settings: dict[str, Any], with_weights: bool
) -> None:
    best, other = checkpoint(tmp_path, **settings), checkpoint(tmp_path, "train", **settings)
    weights = [PrunedWeights()] if with_weights else []
    where = f"in {tmp_path / 'weights.pt'}" if weights else "in no file"
    names = r"ModelCheckpoint\(monitor='val'\) and ModelCheckpoint\(monitor='train'\) have chosen"
    sentence = (
        f"{names} nothing: .* at 0.2500, and the target is 0.5000; the last weights are {where}"
    )
    below = pytest.warns(UserWarning, match="the weights are below") if weights else nullcontext()
    with pytest.warns(NothingAtTargetWarning, match=sentence) as caught, below:
        fit(tmp_path, best, other, below_target(), TargetGate(), *weights)
    assert sum(one.category is NothingAtTargetWarning for one in caught) == 1
    for one in (best, other):
        assert (one.best_model_path, one.best_model_score, one.best_k_models) == ("", None, {})
    assert kept(tmp_path) == set()


@BELOW
@pytest.mark.parametrize("save_last", [True, "link"])
@pytest.mark.parametrize("every_epoch", [1, 3])
def test_the_last_weights_of_a_training_below_the_target(
    tmp_path: Path, save_last: Any, every_epoch: int
) -> None:
    best = checkpoint(tmp_path, save_last=save_last)
    last = f"the last weights are in {tmp_path / 'kept' / 'last.ckpt'}"
    with pytest.warns(NothingAtTargetWarning, match=last):
        fit(tmp_path, best, below_target(), TargetGate(), check_val_every_n_epoch=every_epoch)
    # The last validation of those of every third epoch is one epoch before the end.
    assert torch.load(best.last_model_path, weights_only=True)["global_step"] == 32
    assert kept(tmp_path) == {"last"}


class LastSteps(pl.Callback):
    """Keeps the step of last.ckpt as it is after each epoch."""

    def __init__(self, best: ModelCheckpoint) -> None:
        self.best, self.steps = best, list[tuple[int, bool]]()

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.current_epoch:
            path = Path(self.best.last_model_path)
            step = torch.load(path, weights_only=True)["global_step"]
            self.steps.append((step, path.is_symlink()))


@pytest.mark.parametrize("save_last", [True, "link"])
def test_the_last_state_is_written_in_the_ramp_too(tmp_path: Path, save_last: Any) -> None:
    best = checkpoint(tmp_path, mode="min", save_last=save_last)
    spy = LastSteps(best)
    fit(tmp_path, best, pruned_from(20), TargetGate(), spy, max_epochs=5)
    linked = save_last == "link"
    assert spy.steps == [(8, False), (16, False), (24, linked), (32, linked)]
    assert Path(best.last_model_path).is_symlink() == linked
    assert sparsity_of(best.last_model_path) == 0.5


def test_without_a_metric_or_a_choice_all_is_as_lightning_has_it(tmp_path: Path) -> None:
    free = checkpoint(tmp_path, None, save_top_k=-1)
    last = checkpoint(tmp_path, save_top_k=0, save_last=True)
    newest = checkpoint(tmp_path, "step", filename="newest-{step}")
    fit(tmp_path, free, last, newest, pruned_from(20), TargetGate())
    dense = {"epoch=0-step=8", "epoch=1-step=16"}
    # The number of the step is of now, not of an epoch that has to be at target as a whole.
    assert kept(tmp_path) == {
        *dense,
        "epoch=2-step=24",
        "epoch=3-step=32",
        "last",
        "newest-step=32",
    }
    assert torch.load(last.last_model_path, weights_only=True)["global_step"] == 32


@pytest.mark.parametrize("pruning", [[], [ScheduledPruning()]], ids=["dense", "at target at once"])
@pytest.mark.parametrize(
    "settings",
    [{"monitor": "val", "save_last": True}, {"monitor": "train"}, {"every_n_train_steps": 3}],
    ids=str,
)
def test_an_open_gate_changes_nothing(
    tmp_path: Path, pruning: list[Any], settings: dict[str, Any]
) -> None:
    found = []
    for gate in ([], [TargetGate()]):
        root = tmp_path / str(len(gate))
        best, stop = checkpoint(root, **settings), stopping(patience=2)
        fit(root, *copy.deepcopy(pruning), best, stop, *gate, max_epochs=6)
        found.append((kept(root), stop.stopped_epoch, float(best.best_model_score)))
    assert found[0] == found[1]


def test_several_of_each_wait_by_their_own_metrics(tmp_path: Path) -> None:
    by_val, by_train = checkpoint(tmp_path), checkpoint(tmp_path, "train", filename="train-{step}")
    stops = [stopping(patience=5), stopping("train")]
    fit(tmp_path, by_val, by_train, *stops, pruned_from(20), TargetGate(), max_epochs=6)
    assert kept(tmp_path) == {"epoch=2-step=24", "train-step=32"}
    assert [one.stopped_epoch for one in stops] == [0, 4]


@pytest.mark.filterwarnings("ignore:.*WeightAveraging.*")
@pytest.mark.parametrize("kind", ["StochasticWeightAveraging", "WeightAveraging"])
def test_beside_averages_of_weights(tmp_path: Path, kind: str) -> None:
    if not hasattr(callbacks, kind):
        pytest.skip(f"this version of Lightning has no {kind}")
    settings = {"swa_lrs": 0.01, "swa_epoch_start": 3} if kind.startswith("S") else {}
    averaging = getattr(callbacks, kind)(**settings)
    best = checkpoint(tmp_path, save_last=True)
    fit(tmp_path, averaging, best, pruned_from(12), TargetGate(), PrunedWeights(), max_epochs=6)
    files = [sparsity_of(best.best_model_path), sparsity_of(best.last_model_path)]
    assert files == [0.5, 0.5]
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert zeros(weights["first.weight"]) == 0.5


def test_a_quick_run_for_errors_writes_and_warns_of_nothing(tmp_path: Path) -> None:
    best, stop = checkpoint(tmp_path), stopping()
    with pytest.warns(UserWarning, match="below the target sparsity: 0.2500"):
        fit(tmp_path, best, stop, below_target(), TargetGate(), fast_dev_run=True)
    assert (kept(tmp_path), best.best_model_path, stop.wait_count) == (set(), "", 0)


def test_scores_of_a_validation_before_the_masks_of_its_epoch(tmp_path: Path) -> None:
    best = checkpoint(tmp_path)
    fit(tmp_path, best, pruned_from(2, "epoch"), TargetGate(), module=ScriptedModule(WORSENING))
    assert kept(tmp_path) == {"epoch=2-step=24"}
