"""Going on from checkpoint-N: exactly, from where it is, and from what a kill has left."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from coreai_opt.pruning import PruningError, count_sparsity
from coreai_opt.pruning.scheduling.ramps import RampTooLongError
from tests.helpers.huggingface import (
    MARKS,
    PRUNED,
    Numbers,
    assert_same,
    gpt2,
    pruning,
    trainer,
    transformers,
    zeros,
)

pytestmark = MARKS

FILE = "coreai_pruning.pt"
EVERY = {"save_strategy": "steps", "save_steps": 3}
TARGET = dict.fromkeys(PRUNED, 0.75)


def trained(directory: Path, *callbacks: Any, start: Any = None, **given: Any) -> Any:
    one = trainer(directory, *callbacks, **(EVERY | given))
    one.train(resume_from_checkpoint=None if start is None else str(start))
    return one


def checkpoints(directory: Path) -> list[Path]:
    found = directory.glob("checkpoint-*")
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


@pytest.mark.parametrize(
    ("interval", "begin", "length", "given"),
    [
        ("percent", 10, 80, {}),
        ("step", 2, 18, {}),
        ("step", 2, 8, {"gradient_accumulation_steps": 2}),
        ("epoch", 0, 3, {}),
        ("epoch", 0, 3, {"save_strategy": "epoch"}),
        ("percent", 10, 80, {"optim": "adafactor", "max_steps": 20}),
    ],
)
def test_a_training_goes_on_exactly(
    tmp_path: Path, interval: Any, begin: int, length: int, given: dict[str, Any]
) -> None:
    whole = trained(tmp_path / "whole", pruning(begin, length, interval), **given)
    assert zeros(whole.model) == TARGET
    # Trainer itself makes one more step where it goes on from the last one in mid-epoch.
    for folder in checkpoints(tmp_path / "whole")[:-1]:
        resumed = trained(
            tmp_path / folder.name, pruning(begin, length, interval), start=folder, **given
        )
        assert_same(resumed, whole)


def test_the_dense_values_of_a_checkpoint_are_those_that_come_back(tmp_path: Path) -> None:
    whole = trained(tmp_path, pruning())
    assert count_sparsity(whole.model).regrown > 0
    file = tmp_path / "checkpoint-9" / FILE
    saved = torch.load(file, weights_only=True)
    for one in saved["masks"]["masks"].values():
        one["dense"].fill_(9)
    torch.save(saved, file)
    other = trained(tmp_path / "other", pruning(), start=file.parent)
    theirs = other.model.state_dict()
    assert not all(
        torch.equal(theirs[name], value) for name, value in whole.model.state_dict().items()
    )


def test_every_checkpoint_is_read_by_stock_transformers(tmp_path: Path) -> None:
    trained(tmp_path, pruning(0, 95))
    folders = checkpoints(tmp_path)
    assert len(folders) == 8
    for folder in folders:
        model, info = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        masks = torch.load(folder / FILE, weights_only=True)["masks"]
        state = json.loads((folder / "trainer_state.json").read_text())
        mark = state["stateful_callbacks"]["coreai_pruning"]["attributes"]
        assert masks["step_count"] == mark["clock"]
        assert all(0 < share <= 0.75 for share in zeros(model).values())
    assert zeros(model) == TARGET


def test_a_checkpoint_that_was_moved_is_named_by_the_arguments(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", pruning())
    moved = tmp_path / "it's moved" / "best=1"
    shutil.copytree(tmp_path / "whole" / "checkpoint-12", moved)
    shutil.rmtree(tmp_path / "whole")
    with pytest.raises(PruningError, match=r"neither in .*resume_from_checkpoint=FOLDER"):
        trained(tmp_path / "lost", pruning(), start=moved)
    resumed = trained(tmp_path / "found", pruning(), start=moved, resume_from_checkpoint=str(moved))
    assert_same(resumed, whole)


def test_the_last_checkpoint_is_found_by_trainer_itself(tmp_path: Path) -> None:
    whole = trained(tmp_path, pruning())
    shutil.rmtree(tmp_path / "checkpoint-24")
    one = trainer(tmp_path, pruning(), **EVERY)
    one.train(resume_from_checkpoint=True)
    assert_same(one, whole)


def test_a_training_is_gone_on_with_by_its_own_trainer(tmp_path: Path) -> None:
    whole = trained(tmp_path, pruning())
    first = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert all(torch.equal(first[name], value) for name, value in whole.model.state_dict().items())


class Killed(Exception):
    pass


class Kill(transformers.TrainerCallback):
    """Ends a training when a checkpoint is whole, and before our callback has its turn."""

    def __init__(self, step: int, time: int = 1) -> None:
        self.step, self.left = step, time

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.left -= state.global_step == self.step
        if self.left == 0:
            raise Killed


def test_a_kill_between_a_checkpoint_and_its_masks_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, Kill(12), pruning())
    assert not (tmp_path / "checkpoint-12" / FILE).exists()
    message = r"checkpoint-12 has no masks: coreai_pruning.pt is not there.*checkpoint-9, or masks"
    with pytest.raises(PruningError, match=message):
        trained(tmp_path, pruning(), start=tmp_path / "checkpoint-12")
    whole = trained(tmp_path / "whole", pruning())
    assert_same(trained(tmp_path, pruning(), start=tmp_path / "checkpoint-9"), whole)


def test_the_masks_of_an_earlier_save_of_the_same_step_are_noticed(tmp_path: Path) -> None:
    # The end of the epoch saves checkpoint-8 once more.
    with pytest.raises(Killed):
        trained(tmp_path, Kill(8, time=2), SaveTwice(), pruning(), save_steps=8)
    assert (tmp_path / "checkpoint-8" / FILE).exists()
    message = "coreai_pruning.pt is that of an earlier save.*an earlier checkpoint, or masks_from"
    with pytest.raises(PruningError, match=message):
        trained(tmp_path, pruning(), start=tmp_path / "checkpoint-8")


class SaveTwice(transformers.TrainerCallback):
    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = True


def test_a_checkpoint_without_masks_goes_on_from_its_zeros_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, Kill(12), pruning())
    there = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "checkpoint-12")
    callback = pruning(masks_from="zeros")
    clocks = Clocks(callback)
    one = trained(tmp_path, callback, clocks, start=tmp_path / "checkpoint-12")
    assert clocks.seen[0] == 100 * 12 // 24
    assert zeros(one.model) == TARGET
    later = dict(one.model.named_parameters())
    for name, weight in there.named_parameters():
        if name in PRUNED:
            assert not later[name][weight == 0].any()
    assert "the zeros of the weights are taken as their masks" in caplog.text


class Clocks(transformers.TrainerCallback):
    def __init__(self, of: Any) -> None:
        self.of, self.seen = of, []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(self.of.clock)


def test_pruning_begins_at_a_dense_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path / "dense")
    start = tmp_path / "dense" / "checkpoint-12"
    with caplog.at_level(logging.WARNING):
        whole = trained(tmp_path / "whole", pruning(0, 50), start=start)
    said = "the checkpoint of step 12 is of a training without pruning"
    assert sum(said in line for line in caplog.messages) == 1
    clocks = Clocks(pruning(0, 50))
    trained(tmp_path / "again", clocks.of, clocks, start=start)
    assert clocks.seen == [100 * done // 12 for done in range(12)]
    assert zeros(whole.model) == TARGET
    middle = tmp_path / "whole" / "checkpoint-15"
    assert_same(trained(tmp_path / "resumed", pruning(0, 50), start=middle), whole)
    with pytest.raises(RampTooLongError, match=r"after 20 steps .* training has 12"):
        trained(tmp_path / "long", pruning(0, 20, "step"), start=start)


def test_the_masks_of_another_config_are_refused(tmp_path: Path) -> None:
    trained(tmp_path, pruning(), max_steps=6)
    config = {
        "global_config": {"op_state_spec": {"weight": {"target_sparsity": 0.75}}},
        "module_name_configs": {"lm_head": None},
    }
    with pytest.raises(PruningError, match="wte"):
        trained(tmp_path, pruning(config=config), start=tmp_path / "checkpoint-3", max_steps=6)


def test_states_of_callbacks_are_restored_beside_it(tmp_path: Path) -> None:
    given = {
        "restore_callback_states_from_checkpoint": True,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "metric_for_best_model": "loss",
    }
    stopping = [transformers.EarlyStoppingCallback(50) for _ in range(2)]
    whole = trained(tmp_path / "whole", stopping[0], pruning(), **given)
    start = tmp_path / "whole" / "checkpoint-12"
    assert_same(trained(tmp_path / "resumed", stopping[1], pruning(), start=start, **given), whole)


def test_only_as_many_checkpoints_are_kept_as_asked(tmp_path: Path) -> None:
    trained(tmp_path, pruning(), save_total_limit=2, save_only_model=True)
    left = sorted(folder.name for folder in tmp_path.glob("checkpoint-*"))
    assert left == ["checkpoint-21", "checkpoint-24"]
    assert all((tmp_path / name / FILE).exists() for name in left)


class Elsewhere(transformers.Trainer):
    """Writes its checkpoints where nobody looks for them."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(self.args.output_dir).with_name("elsewhere"))


def test_masks_that_cannot_be_saved_are_said(tmp_path: Path) -> None:
    args = trainer(tmp_path / "here", **EVERY, max_steps=3).args
    one = trainer(tmp_path / "model")
    other = Elsewhere(one.model, args, train_dataset=one.train_dataset, callbacks=[pruning()])
    with pytest.warns(UserWarning, match="the masks of step 3 are not saved: there is no folder"):
        other.train()


def test_the_checkpoints_of_trials_have_their_masks(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra optuna")
    args = trainer(tmp_path, **EVERY, max_steps=6).args
    one = transformers.Trainer(
        args=args,
        model_init=gpt2_of_a_trial,
        train_dataset=Numbers(),
        eval_dataset=Numbers(8),
        callbacks=[pruning()],
    )
    space = {"hp_space": lambda trial: {"learning_rate": trial.suggest_float("rate", 0.01, 0.02)}}
    one.hyperparameter_search(**space, n_trials=2, backend="optuna")
    found = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob(FILE))
    assert found == [f"run-{run}/checkpoint-{step}/{FILE}" for run in (0, 1) for step in (3, 6)]
    start = tmp_path / "run-1" / "checkpoint-3"
    resumed = trainer(tmp_path, pruning(), **EVERY, max_steps=6)
    resumed.train(resume_from_checkpoint=str(start))
    assert zeros(resumed.model) == TARGET


def gpt2_of_a_trial(trial: Any) -> Any:
    return gpt2()
