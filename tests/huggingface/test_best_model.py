"""The best model of transformers.Trainer is chosen among those at the target."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.huggingface import (
    MARKS,
    PRUNED,
    Numbers,
    arguments,
    gpt2,
    pruning,
    transformers,
    zeros,
)

pytestmark = MARKS

TARGET = dict.fromkeys(PRUNED, 0.75)
EVERY_3 = {
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_strategy": "steps",
    "save_steps": 3,
    "metric_for_best_model": "falling",
    "greater_is_better": True,
}


def falling() -> Any:
    """Make a metric that is best the first time, and worse each time after."""
    values = iter(range(0, -100, -1))
    return lambda prediction: {"falling": float(next(values))}


def trained(directory: Path, *callbacks: Any, start: Path | None = None, **given: Any) -> Any:
    one = transformers.Trainer(
        gpt2(),
        arguments(directory, **(EVERY_3 | {"load_best_model_at_end": True} | given)),
        train_dataset=Numbers(),
        eval_dataset=Numbers(8),
        compute_metrics=falling(),
        callbacks=list(callbacks),
    )
    one.train(resume_from_checkpoint=None if start is None else str(start))
    return one


def test_the_best_model_is_the_best_at_the_target(tmp_path: Path) -> None:
    # The ramp ends at step 12 of 24; without the callback step 3 is the best.
    assert trained(tmp_path / "dense").state.best_global_step == 3
    callback = pruning(0, 50)
    one = trained(tmp_path / "pruned", callback)
    assert one.state.best_global_step == 12
    assert zeros(one.model) == TARGET
    saved = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "pruned" / "checkpoint-12")
    theirs = saved.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in one.model.state_dict().items())


def test_the_masks_are_those_of_the_best_model(tmp_path: Path) -> None:
    callback = pruning(0, 50)
    one = trained(tmp_path, callback)
    assert callback.clock == 50
    assert callback.pruner.at_target()
    weights = {name: value.clone() for name, value in one.model.state_dict().items()}
    callback.pruner.mask_weights(also_data=True)
    assert all(torch.equal(weights[name], value) for name, value in one.model.state_dict().items())


def test_no_best_is_chosen_in_a_training_that_ends_below_the_target(tmp_path: Path) -> None:
    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 9

    with pytest.warns(UserWarning, match="ended at percent 37 .* below the target sparsity"):
        one = trained(tmp_path, pruning(0, 50), Stop())
    assert one.state.best_model_checkpoint is None
    assert all(share > 0.6 for share in zeros(one.model).values())


def test_early_stopping_begins_to_wait_at_the_target(tmp_path: Path) -> None:
    assert trained(tmp_path / "dense", _patient()).state.global_step == 9
    one = trained(tmp_path / "pruned", _patient(), pruning(0, 50))
    assert one.state.global_step == 18
    assert one.state.best_global_step == 12
    assert zeros(one.model) == TARGET


def _patient() -> Any:
    return transformers.EarlyStoppingCallback(early_stopping_patience=2)


def test_the_best_of_a_dense_training_is_not_the_best_pruned_one(tmp_path: Path) -> None:
    trained(tmp_path, max_steps=6, num_train_epochs=1)
    state = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["best_global_step"] == 3
    one = trained(tmp_path, pruning(0, 50), start=tmp_path / "checkpoint-6")
    assert one.state.best_global_step == 15
    assert zeros(one.model) == TARGET


def test_a_best_of_before_the_stop_stays_the_best(tmp_path: Path) -> None:
    trained(tmp_path, pruning(0, 50))
    one = trained(tmp_path, pruning(0, 50), start=tmp_path / "checkpoint-18")
    # The metric begins anew at 0, and is better once more.
    assert one.state.best_global_step in (12, 21)
    assert zeros(one.model) == TARGET


def test_saving_the_best_alone_saves_the_last_until_the_target(tmp_path: Path) -> None:
    one = trained(tmp_path, pruning(0, 50), save_strategy="best")
    assert one.state.best_global_step == 12
    there = sorted(int(each.name.split("-")[1]) for each in tmp_path.glob("checkpoint-*"))
    assert there == [3, 6, 9, 12]


def test_a_best_model_below_the_target_is_said_with_its_file(tmp_path: Path) -> None:
    class Choose(transformers.TrainerCallback):
        """Somebody who chooses the best model himself, before Trainer loads it."""

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 24:
                state.best_model_checkpoint = str(tmp_path / "checkpoint-6")

    callback = pruning(0, 50)
    message = r"the best model was loaded from .*checkpoint-6, and is below .*: 0\.\d+ of 0\.75"
    with pytest.warns(UserWarning, match=message):
        one = trained(tmp_path, callback, Choose())
    assert callback.clock == 25
    assert all(0.3 < share < 0.75 for share in zeros(one.model).values())
