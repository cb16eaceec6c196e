"""What other people's apps do with a module while it is pruned: all of it works as without."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning
from lightning_callbacks.scheduled_pruning import RampTooLongError
from tests.helpers.lightning import (
    EvaluatedModule,
    RecordingSchedule,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    momentum_sgd,
    zeros,
)


def pruned(**fields: Any) -> ScheduledPruning:
    return ScheduledPruning(linear_ramp(12), **{"target_sparsity": 0.5, **fields})


def fit(root: Path, module: Any, *callbacks: pl.Callback, **given: Any) -> pl.Trainer:
    path = given.pop("ckpt_path", None)
    trainer = make_trainer(root, *callbacks, **given)
    validation = loader(2) if isinstance(module, EvaluatedModule) else None
    trainer.fit(module, loader(), validation, ckpt_path=path)
    return trainer


class ByEnding(TinyModule):
    """Groups of parameters by the ending of their names, as half of all templates have them."""

    def configure_optimizers(self) -> Any:
        decayed = [each for name, each in self.named_parameters() if name.endswith(".weight")]
        others = [each for name, each in self.named_parameters() if not name.endswith(".weight")]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01)


class ByType(TinyModule):
    """Groups by the type of the module, which have to hold every parameter once (minGPT)."""

    def configure_optimizers(self) -> Any:
        decay, rest = set(), set()
        for module_name, module in self.named_modules():
            for name, _ in module.named_parameters(recurse=False):
                full = f"{module_name}.{name}".lstrip(".")
                is_decayed = name.endswith("weight") and type(module) is nn.Linear
                (decay if is_decayed else rest).add(full)
        known = dict(self.named_parameters())
        assert decay | rest == known.keys()
        assert not decay & rest
        groups = [
            {"params": [known[name] for name in sorted(decay)], "weight_decay": 0.1},
            {"params": [known[name] for name in sorted(rest)], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=0.01)


@pytest.mark.parametrize("make", [ByEnding, ByType])
def test_groups_of_parameters_are_those_of_the_dense_training(tmp_path: Path, make: Any) -> None:
    module, control = make(), make()
    trainer, dense = fit(tmp_path, module, pruned()), fit(tmp_path, control)
    for ours, theirs in zip(
        trainer.optimizers[0].param_groups, dense.optimizers[0].param_groups, strict=True
    ):
        assert [each.shape for each in ours["params"]] == [each.shape for each in theirs["params"]]
        assert ours["weight_decay"] == theirs["weight_decay"]
    assert zeros(module.first.weight) == 0.5


class ZippedAverage(pl.Callback):
    """An average of an app's own that zips parameters, and is put in for validation."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.average = copy.deepcopy(pl_module).requires_grad_(False)

    def on_train_batch_end(self, trainer: Any, pl_module: pl.LightningModule, *args: Any) -> None:
        pairs = zip(self.average.parameters(), pl_module.parameters(), strict=True)
        for average, current in pairs:
            assert average.shape == current.shape
            average.mul_(0.5).add_(current.detach(), alpha=0.5)


@pytest.mark.parametrize("is_first", [True, False])
def test_an_average_of_their_own_pairs_the_parameters(tmp_path: Path, is_first: bool) -> None:
    average, pruning, module = ZippedAverage(), pruned(), TinyModule()
    fit(tmp_path, module, *([average, pruning] if is_first else [pruning, average]))
    names = [name for name, _ in average.average.named_parameters()]
    assert names == [name for name, _ in TinyModule().named_parameters()]
    assert zeros(module.first.weight) == 0.5
    assert zeros(average.average.first.weight) < 0.5  # of weights from before the masks
    assert pruning.pruner is not None
    pruning.pruner.mask_copy(average.average)
    assert zeros(average.average.first.weight) == 0.5


class Teacher(TinyModule):
    """A frozen teacher inside the module, that follows it as the loop goes."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(nn.ModuleList([self.first, self.second])).requires_grad_(False)

    def on_train_batch_end(self, *args: Any) -> None:
        student = [*self.first.parameters(), *self.second.parameters()]
        for follower, current in zip(self.teacher.parameters(), student, strict=True):
            assert follower.shape == current.shape
            follower.mul_(0.5).add_(current.detach(), alpha=0.5)


@pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning")
def test_a_frozen_teacher_follows_its_student(tmp_path: Path) -> None:
    module = Teacher()
    fit(tmp_path, module, pruned())
    assert zeros(module.first.weight) == 0.5
    assert zeros(module.teacher[0].weight) < 0.5


class WithNetwork(EvaluatedModule):
    """Saves a network among its hyperparameters, as the most used template does."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net if net is not None else nn.Linear(8, 8)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(self.net(features))


@pytest.mark.filterwarnings("ignore:Attribute 'net' is an instance of `nn.Module`")
def test_a_network_among_the_hyperparameters_is_saved_and_loaded(tmp_path: Path) -> None:
    module = WithNetwork(nn.Linear(8, 8))
    checkpoint = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, save_last=True)
    trainer = fit(tmp_path, module, pruned(), checkpoint, enable_checkpointing=True)
    loaded = WithNetwork.load_from_checkpoint(checkpoint.last_model_path, weights_only=False)
    assert zeros(loaded.net.weight) == zeros(loaded.first.weight) == 0.5
    assert all(map(torch.equal, loaded.parameters(), module.parameters()))
    # Best of all, whatever epoch that was.
    best = WithNetwork.load_from_checkpoint(checkpoint.best_model_path, weights_only=False)
    (found,) = trainer.validate(best, loader(2), verbose=False)
    assert found["val_loss"] == pytest.approx(float(checkpoint.best_model_score))


def test_a_checkpoint_is_evaluated_by_a_script_without_callbacks(tmp_path: Path) -> None:
    module = EvaluatedModule()
    fit(tmp_path, module, pruned()).save_checkpoint(tmp_path / "end.ckpt")
    fresh = EvaluatedModule()
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        make_trainer(tmp_path).test(
            fresh, loader(2), ckpt_path=tmp_path / "end.ckpt", verbose=False
        )
    assert zeros(fresh.first.weight) == 0.5
    plain = nn.Linear(8, 16)
    state = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]
    plain.load_state_dict({"weight": state["first.weight"], "bias": state["first.bias"]})


class Everywhere(pl.Callback):
    """Looks at the module at every hook, and does with it what an app may do."""

    def __init__(self, root: Path) -> None:
        self.path, self.seen = root / "whole.pt", 0

    def look(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self.seen += 1
        plain = TinyModule()
        assert type(module) is TinyModule
        assert [type(each) for each in module.modules()] == [type(each) for each in plain.modules()]
        assert [name for name, _ in module.named_parameters()] == [
            name for name, _ in plain.named_parameters()
        ]
        state = module.state_dict()
        assert {key: value.shape for key, value in state.items()} == {
            key: value.shape for key, value in plain.state_dict().items()
        }
        own = {"configure_model", "setup", "on_load_checkpoint"}
        assert not own & vars(module).keys()
        core = nn.Sequential(module.first, nn.ReLU(), module.second)
        for twin in (copy.deepcopy(core), pickle.loads(pickle.dumps(core))):
            assert torch.equal(twin[0].weight, module.first.weight)
            assert not twin[0].weight._backward_hooks
        torch.save(core, self.path)
        if self.seen % 40 == 1:
            inputs = torch.ones(2, 8)
            exported = torch.export.export(core, (inputs,)).module()(inputs)
            assert torch.equal(exported, core(inputs))

    on_fit_start = on_train_start = on_train_epoch_start = on_train_batch_start = look
    on_before_zero_grad = on_before_optimizer_step = on_after_backward = look
    on_train_batch_end = on_train_epoch_end = on_train_end = on_fit_end = look


@pytest.mark.parametrize("is_first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_module_is_its_own_at_every_moment(tmp_path: Path, is_first: bool) -> None:
    watch, module = Everywhere(tmp_path), TinyModule()
    identities = [id(each) for each in module.parameters()]
    callbacks = [watch, pruned()] if is_first else [pruned(), watch]
    fit(tmp_path, module, *callbacks)
    assert watch.seen > 80
    assert [id(each) for each in module.parameters()] == identities
    code = (
        "import sys, torch; core = torch.load(sys.argv[1], weights_only=False); "
        "assert 'coreai_opt' not in sys.modules; "
        "assert int((core[0].weight == 0).sum()) == 64; core(torch.ones(1, 8))"
    )
    subprocess.run([sys.executable, "-c", code, str(watch.path)], check=True)


@pytest.mark.parametrize("batches", [1, 2], ids=["each batch steps", "every second"])
def test_dense_weights_that_are_loaded_in_mid_run_are_masked_before_the_next_batch(
    tmp_path: Path, batches: int
) -> None:
    class Loads(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
            if trainer.global_step == 13:
                module.load_state_dict(TinyModule().state_dict())
                assert zeros(module.first.weight) == 0

    class Seen(TinyModule):
        def forward(self, features: Tensor) -> Tensor:
            if self.trainer.global_step >= 12:
                shares.append(zeros(self.first.weight))
            return super().forward(features)

    shares: list[float] = []
    module = Seen()
    settings = {"accumulate_grad_batches": batches, "max_epochs": 2 * batches}
    fit(tmp_path, module, pruned(), Loads(), **settings)
    assert shares == [0.5] * 4 * batches
    assert zeros(module.first.weight) == 0.5


def test_an_adapter_that_is_merged_behind_the_last_step_stays_under_the_mask(
    tmp_path: Path,
) -> None:
    class Merges(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
            if trainer.is_last_batch:
                module.first.weight.data += 1

        def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
            module.second.weight.data += 1  # behind the validation

    class Validated(EvaluatedModule):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            if self.trainer.global_step == 16:
                shares.append(zeros(self.first.weight))

    shares: list[float] = []
    module = Validated()
    fit(tmp_path, module, pruned(), Merges())
    assert shares == [0.5] * 2
    assert zeros(module.second.weight) == 0.5


def test_a_layer_that_takes_the_place_of_a_pruned_one_is_said(tmp_path: Path) -> None:
    class Replaces(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
            if trainer.current_epoch == 1:
                module.second = nn.Linear(16, 4)

    said = r"1 pruned weights are no longer in the module .*'second\.weight'.* is dense"
    with pytest.warns(UserWarning, match=said):
        fit(tmp_path, TinyModule(), pruned(), Replaces())


def test_weights_that_are_assigned_anew_are_pruned(tmp_path: Path) -> None:
    class Assigns(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
            if trainer.current_epoch == 1:
                state = {key: value.clone() for key, value in TinyModule().state_dict().items()}
                module.load_state_dict(state, assign=True)
                trainer.strategy.optimizers = [momentum_sgd(module.parameters())]

    module = TinyModule()
    fit(tmp_path, module, Assigns(), pruned(), max_epochs=3)
    assert (zeros(module.first.weight), zeros(module.second.weight)) == (0.5, 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_changes_its_dtype_between_two_fits(tmp_path: Path, dtype: torch.dtype) -> None:
    class Casting(TinyModule):
        def loss(self, batch: list[Tensor]) -> Tensor:
            return super().loss([batch[0].to(self.first.weight.dtype), batch[1]])

    # Its end is not known: the first fit may end before it.
    schedule = RecordingSchedule(linear_ramp(12))
    module, pruning = Casting(), ScheduledPruning(schedule, target_sparsity=0.5)
    trainer = make_trainer(tmp_path, pruning, max_epochs=1)
    with pytest.warns(UserWarning, match="below the target"):
        trainer.fit(module, loader())
    before = zeros(module.first.weight)
    module.to(dtype)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader())
    assert 0 < before < 0.5
    assert zeros(module.first.weight) == 0.5
    assert module.first.weight.dtype is dtype
    assert pruning.clock == 16


@pytest.mark.parametrize(("interval", "left"), [("step", 8), ("epoch", 1)])
def test_a_ramp_that_does_not_fit_what_is_left_is_refused(
    tmp_path: Path, interval: Any, left: int
) -> None:
    path = tmp_path / "dense.ckpt"
    fit(tmp_path, TinyModule(), max_epochs=2).save_checkpoint(path)
    pruning = ScheduledPruning(linear_ramp(left + 1), 0.5, interval=interval)
    with pytest.raises(RampTooLongError, match=f"has {left};"):
        fit(tmp_path, TinyModule(), pruning, max_epochs=3, ckpt_path=path)


def test_a_dense_checkpoint_that_is_tested_after_a_pruning_is_dense(tmp_path: Path) -> None:
    path, module, pruning = tmp_path / "dense.ckpt", EvaluatedModule(), pruned()
    fit(tmp_path, EvaluatedModule()).save_checkpoint(path)
    trainer = fit(tmp_path, module, pruning)
    assert count_sparsity(module).target == 0.5
    trainer.test(module, loader(2), ckpt_path=path, verbose=False)
    assert zeros(module.first.weight) == 0
    assert not any(pruned_tensors(module))
    assert count_sparsity(module).target == 0


@pytest.mark.parametrize("interval", ["step", "epoch", "percent"])
def test_a_dense_checkpoint_of_the_app_starts_a_pruning(
    tmp_path: Path, interval: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dense = EvaluatedModule()
    fit(tmp_path, dense, max_epochs=2).save_checkpoint(tmp_path / "dense.ckpt")
    lengths = {"step": 12, "epoch": 3, "percent": 60}
    pruning = ScheduledPruning(linear_ramp(lengths[interval]), 0.5, interval=interval)
    module = EvaluatedModule()
    with caplog.at_level("INFO"):
        trainer = fit(tmp_path, module, pruning, max_epochs=5, ckpt_path=tmp_path / "dense.ckpt")
    said = [each.message for each in caplog.records if "has no masks" in each.message]
    assert said == [
        "the checkpoint of step 16 has no masks: its weights are taken, and pruning begins now, at "
        "the beginning of its schedule"
    ]
    assert trainer.global_step == 40
    assert pruning.clock == {"step": 24, "epoch": 3, "percent": 100}[interval]
    assert count_sparsity(module).achieved == 0.5
