"""Checkpoint and early stopping that see only what was measured at target sparsity."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint

from coreai_opt.pruning.config import ConstantSparsitySchedule
from lightning_callbacks import ScheduledPruning, TargetSparsityCheckpoint
from lightning_callbacks._metrics_at_target import at_target_sparsity
from lightning_callbacks.target_sparsity import NothingAtTargetWarning
from tests.helpers import gating
from tests.helpers.gating import below_target, fit, kept
from tests.helpers.lightning import WORSENING, ScriptedModule, pruned_from

checkpoint = partial(gating.checkpoint, kind=TargetSparsityCheckpoint)


@pytest.mark.parametrize(
    ("begin", "chosen"),
    [(0, "0-step=8"), (8, "0-step=8"), (9, "1-step=16"), (16, "1-step=16"), (17, "2-step=24")],
)
def test_the_best_validation_is_chosen_among_those_at_target(
    tmp_path: Path, begin: int, chosen: str
) -> None:
    saving = checkpoint(tmp_path, "val")
    fit(tmp_path, pruned_from(begin), saving)
    assert Path(saving.best_model_path).stem == f"epoch={chosen}"
    assert kept(tmp_path) == {f"epoch={chosen}"}


def test_a_better_epoch_at_target_replaces_a_worse_one(tmp_path: Path) -> None:
    saving = checkpoint(tmp_path, "val")
    module = ScriptedModule([0.9, 0.5, 0.7, 0.6])
    fit(tmp_path, pruned_from(12), saving, module=module)
    assert Path(saving.best_model_path).stem == "epoch=2-step=24"
    assert float(saving.best_model_score) == pytest.approx(0.7)


def test_a_validation_before_the_masks_of_its_epoch_does_not_count(tmp_path: Path) -> None:
    # The masks move when the epoch has ended, after its validation.
    saving = checkpoint(tmp_path, "val", save_top_k=-1)
    fit(tmp_path, pruned_from(2, "epoch"), saving)
    assert kept(tmp_path) == {"epoch=2-step=24", "epoch=3-step=32"}


@pytest.mark.parametrize(
    ("begin", "first"), [(16, "epoch=1-step=16"), (17, "epoch=3-step=32"), (24, "epoch=3-step=32")]
)
def test_validation_every_second_epoch(tmp_path: Path, begin: int, first: str) -> None:
    saving = checkpoint(tmp_path, "val")
    fit(tmp_path, pruned_from(begin), saving, max_epochs=6, check_val_every_n_epoch=2)
    assert Path(saving.best_model_path).stem == first


def test_a_validation_of_an_earlier_epoch_keeps_what_it_was(tmp_path: Path) -> None:
    # At the end of epoch 2 the masks are at target, but the metric is that of epoch 1.
    saving = checkpoint(tmp_path, "val", save_top_k=-1, save_on_train_epoch_end=True)
    fit(tmp_path, pruned_from(17), saving, max_epochs=6, check_val_every_n_epoch=2)
    assert kept(tmp_path) == {"epoch=3-step=32", "epoch=4-step=40", "epoch=5-step=48"}


@pytest.mark.parametrize(
    ("begin", "first"), [(8, "epoch=0-step=8"), (11, "epoch=1-step=12"), (13, "epoch=1-step=16")]
)
def test_validation_twice_an_epoch(tmp_path: Path, begin: int, first: str) -> None:
    saving = checkpoint(tmp_path, "val")
    module = ScriptedModule([*WORSENING, 0.3, 0.2], by_validation=True)
    fit(tmp_path, pruned_from(begin), saving, module=module, val_check_interval=0.5)
    assert Path(saving.best_model_path).stem == first


@pytest.mark.parametrize(
    ("begin", "first"), [(0, "epoch=0-step=8"), (8, "epoch=1-step=16"), (9, "epoch=2-step=24")]
)
@pytest.mark.parametrize("limit_val_batches", [0, 2], ids=["not validated", "validated"])
def test_a_mean_over_an_epoch_counts_when_all_of_it_was_at_target(
    tmp_path: Path, begin: int, first: str, limit_val_batches: int
) -> None:
    saving = checkpoint(tmp_path, "train")
    fit(tmp_path, pruned_from(begin), saving, limit_val_batches=limit_val_batches)
    assert Path(saving.best_model_path).stem == first


def test_a_mean_over_a_dense_epoch_does_not_count_at_a_later_validation(tmp_path: Path) -> None:
    # Validation at the end of epochs 1, 3 and 5 finds the means of epochs 0, 2 and 4.
    saving = checkpoint(tmp_path, "train")
    fit(tmp_path, pruned_from(12), saving, max_epochs=6, check_val_every_n_epoch=2)
    assert float(saving.best_model_score) == pytest.approx(0.7)


def test_a_validation_before_target_does_not_count_at_a_later_step(tmp_path: Path) -> None:
    saving = checkpoint(tmp_path, "val", every_n_train_steps=2, save_top_k=-1)
    fit(tmp_path, pruned_from(9), saving, max_epochs=3)
    scores = {round(float(score), 3) for score in saving.best_k_models.values()}
    assert scores == {0.8}
    assert min(kept(tmp_path)) == "epoch=2-step=18"


@pytest.mark.parametrize("limit_val_batches", [0, 2], ids=["not validated", "validated"])
def test_every_few_steps_without_a_metric_from_the_target_on(
    tmp_path: Path, limit_val_batches: int
) -> None:
    saving = checkpoint(tmp_path, None, every_n_train_steps=2, save_top_k=-1)
    settings = {"max_epochs": 2, "limit_val_batches": limit_val_batches}
    fit(tmp_path, pruned_from(5), saving, **settings)
    steps = {int(name.partition("step=")[2]) for name in kept(tmp_path)}
    assert steps == {6, 8, 10, 12, 14, 16}


@pytest.mark.parametrize(
    "settings", [{}, {"check_val_every_n_epoch": 2}, {"limit_val_batches": 0}], ids=str
)
def test_without_a_metric_the_last_epoch_at_target_is_kept(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    saving = checkpoint(tmp_path, None)
    fit(tmp_path, pruned_from(12), saving, **settings)
    assert kept(tmp_path) == {"epoch=3-step=32"}


@pytest.mark.parametrize("monitor", ["val", "train", None])
@pytest.mark.parametrize("settings", [{}, {"every_n_train_steps": 2}], ids=["epochs", "steps"])
def test_nothing_is_kept_when_the_target_is_never_reached(
    tmp_path: Path, monitor: str | None, settings: dict[str, Any]
) -> None:
    saving = checkpoint(tmp_path, monitor, save_last=True, **settings)
    with (
        pytest.warns(NothingAtTargetWarning, match="ended at 0.2500, and the target is 0.5000"),
        pytest.warns(UserWarning, match=r"below the target sparsity: 0.2500 of 0.5000"),
    ):
        fit(tmp_path, below_target(), saving)
    assert (kept(tmp_path), saving.best_model_path, saving.last_model_path) == (set(), "", "")


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({"check_val_every_n_epoch": 3}, "the last validation was at a sparsity of 0.0000"),
        ({"check_val_every_n_epoch": 9}, "there was no validation"),
    ],
)
def test_a_target_that_no_validation_saw_is_said_at_the_end(
    tmp_path: Path, settings: dict[str, Any], validated: str
) -> None:
    saving = checkpoint(tmp_path, "val")
    sentence = f"{validated}, the training ended at 0.5000, and the target is 0.5000"
    with pytest.warns(NothingAtTargetWarning, match=sentence):
        fit(tmp_path, pruned_from(30), saving, **settings)
    assert saving.best_model_path == ""


SAVING: list[dict[str, Any]] = [
    {"monitor": "val", "mode": "max"},
    {"monitor": "val", "mode": "min", "save_top_k": 2, "save_last": True},
    {"monitor": "train", "mode": "min"},
    {"monitor": "val", "mode": "min", "every_n_train_steps": 3},
    {"save_top_k": -1},
    {"every_n_train_steps": 3, "save_top_k": -1, "save_last": True},
]


@pytest.mark.parametrize(
    ("is_pruned", "every_epoch"), [pytest.param(False, 1, marks=pytest.mark.slow), (True, 2)]
)
@pytest.mark.parametrize("settings", SAVING, ids=str)
def test_a_model_at_target_is_saved_as_lightning_does(
    tmp_path: Path, is_pruned: bool, settings: dict[str, Any], every_epoch: int
) -> None:
    names = []
    for kind in (ModelCheckpoint, TargetSparsityCheckpoint):
        root = tmp_path / kind.__name__
        pruning = [ScheduledPruning()] if is_pruned else []
        saving = kind(root / "kept", "{epoch}-{step}", **settings)
        fit(root, *pruning, saving, check_val_every_n_epoch=every_epoch)
        names.append(kept(root))
    assert names[0] == names[1] != set()


def test_at_target_is_asked_of_every_mask(tmp_path: Path) -> None:
    late = {"sparsity_schedule": ConstantSparsitySchedule(begin_step=32)}
    module = ScriptedModule()
    assert at_target_sparsity(module)
    saving = checkpoint(tmp_path, "val", save_top_k=-1)
    pruning = ScheduledPruning(config={"module_name_configs": {"second": late}})
    fit(tmp_path, pruning, saving, module=module)
    assert kept(tmp_path) == {"epoch=3-step=32"}
    assert at_target_sparsity(module)
