"""When the model gets its masks, and how a run goes on from a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import (
    FIRST_LAYER,
    EvaluatedModule,
    RecordingSchedule,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)
from tests.helpers.lightning_modules import LateModule, SetUpModule


def names_of(module: nn.Module) -> list[str]:
    return [tensor.name for tensor in pruned_tensors(module)]


def test_the_optimizers_hold_the_parameters_of_the_module(tmp_path: Path) -> None:
    class Probe(TinyModule):
        def configure_optimizers(self) -> Any:
            seen.extend(name for name, _ in self.named_parameters())
            return super().configure_optimizers()

    seen: list[str] = []
    module = Probe()
    trainer = make_trainer(tmp_path, ScheduledPruning(target_sparsity=0.5))
    trainer.fit(module, loader())
    held = {id(param) for group in trainer.optimizers[0].param_groups for param in group["params"]}
    assert seen == [name for name, _ in TinyModule().named_parameters()]
    assert {id(tensor.original) for tensor in pruned_tensors(module)} <= held


@pytest.mark.parametrize("make", [TinyModule, LateModule, SetUpModule])
def test_layers_are_pruned_wherever_they_are_made(
    tmp_path: Path, make: Callable[[], TinyModule]
) -> None:
    module = make()
    make_trainer(tmp_path, ScheduledPruning(target_sparsity=0.5)).fit(module, loader())
    assert names_of(module) == ["first.weight", "second.weight"]
    assert (zeros(module.first.weight), zeros(module.second.weight)) == (0.5, 0.5)


def test_configure_model_of_the_instance_is_called_and_put_back(tmp_path: Path) -> None:
    def own() -> None:
        calls.append(names_of(module))

    calls: list[list[str]] = []
    module = TinyModule()
    module.configure_model = own
    make_trainer(tmp_path, ScheduledPruning()).fit(module, loader())
    assert module.configure_model is own
    assert calls == [[]]


def test_a_fit_after_one_that_failed_in_setup_prepares_the_model_once(tmp_path: Path) -> None:
    class Moody(TinyModule):
        def setup(self, stage: str) -> None:
            if not failed:
                failed.append(stage)
                raise OSError("the disk is away")

    failed: list[str] = []
    module, pruning = Moody(), ScheduledPruning(target_sparsity=0.5)
    trainer = make_trainer(tmp_path, pruning)
    with pytest.raises(OSError, match="away"):
        trainer.fit(module, loader())
    assert not {"configure_model", "on_load_checkpoint"} & vars(module).keys()
    trainer.fit(module, loader())
    assert zeros(module.first.weight) == 0.5


def test_a_second_fit_goes_on_where_the_first_one_ended(tmp_path: Path) -> None:
    module, schedule = TinyModule(), RecordingSchedule(linear_ramp(16))
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER)
    trainer = make_trainer(tmp_path, pruning, max_epochs=1)
    with pytest.warns(UserWarning, match="below the target"):
        trainer.fit(module, loader())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader())
    assert schedule.asked == list(range(17))
    assert zeros(module.first.weight) == 0.5


@pytest.mark.parametrize("interval", ["step", "epoch", "percent"])
def test_a_callback_prunes_a_second_model_from_the_beginning(tmp_path: Path, interval: Any) -> None:
    schedule = RecordingSchedule()
    pruning = ScheduledPruning(schedule, config=FIRST_LAYER, interval=interval)
    make_trainer(tmp_path, pruning).fit(TinyModule(), loader())
    first, schedule.asked = schedule.asked, []
    make_trainer(tmp_path, pruning).fit(TinyModule(), loader())
    assert schedule.asked == first


def test_validating_before_training_prunes_nothing(tmp_path: Path) -> None:
    module, pruning = EvaluatedModule(), ScheduledPruning(target_sparsity=0.5)
    trainer = make_trainer(tmp_path, pruning, num_sanity_val_steps=0)
    trainer.validate(module, loader(), verbose=False)
    assert names_of(module) == []
    trainer.fit(module, loader(), loader(2))
    assert names_of(module) == ["first.weight", "second.weight"]


def pruned_checkpoint(root: Path) -> tuple[TinyModule, Path]:
    """Train with masks, and save the model and all else at the end."""
    module = EvaluatedModule()
    trainer = make_trainer(root, ScheduledPruning(linear_ramp(16), target_sparsity=0.5))
    trainer.fit(module, loader(), loader(2))
    trainer.save_checkpoint(root / "pruned.ckpt")
    return module, root / "pruned.ckpt"


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_a_checkpoint_is_evaluated_as_any_other(tmp_path: Path, verb: str) -> None:
    trained, path = pruned_checkpoint(tmp_path)
    torch.manual_seed(99)
    module = EvaluatedModule()
    trainer = make_trainer(
        tmp_path, ScheduledPruning(linear_ramp(16), target_sparsity=0.5), max_epochs=1
    )
    getattr(trainer, verb)(module, loader(), ckpt_path=path)
    assert names_of(module) == []
    assert all(map(torch.equal, module.state_dict().values(), trained.state_dict().values()))


def test_a_checkpoint_loads_with_weights_only(tmp_path: Path) -> None:
    _, path = pruned_checkpoint(tmp_path)
    saved = torch.load(path, weights_only=True)
    kept = saved["callbacks"]["ScheduledPruning"]
    assert (kept["clock"], kept["optimizer_steps"]) == (16, [16])
    assert kept["masks"]["masks"]["first.weight"]["bits"].numel() == 128 // 8
    assert kept["masks"]["masks"]["first.weight"]["dense"].shape == (64,)
    pruning = ScheduledPruning(linear_ramp(16), target_sparsity=0.5)
    trainer = make_trainer(tmp_path, pruning, max_epochs=3)
    trainer.fit(EvaluatedModule(), loader(), loader(2), ckpt_path=path, weights_only=True)
    assert pruning.pruner is not None
    assert pruning.pruner.step_count == 24
