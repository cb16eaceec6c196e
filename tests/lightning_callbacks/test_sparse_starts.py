"""A fit that begins on a sparse checkpoint, whoever has written it."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.utils import prune

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig, PruningError
from coreai_opt.pruning.model.stats import count_sparsity
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import (
    EvaluatedModule,
    SaveAt,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)

RAMP = linear_ramp(14, update_frequency=2)


class Masked(TinyModule):
    """Puts masks onto itself, as a module had to before there was a callback in place."""

    def __init__(self) -> None:
        super().__init__(adamw)
        self.pruner = MagnitudePruner(self, MagnitudePrunerConfig.uniform(0.5, RAMP))
        self.pruner.prepare()

    def on_train_start(self) -> None:
        self.pruner.mask_optimizer_state(*self.trainer.optimizers)

    def on_train_end(self) -> None:
        self.pruner.finalize()


class Clock(pl.Callback):
    """Moves the masks on, and saves what a callback of a former version has saved, or nothing."""

    state_key = "ScheduledPruning"

    def __init__(self, is_saved: bool = True) -> None:
        self.steps, self.is_saved = 0, is_saved

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        module.pruner.step()
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {} if not self.is_saved else {"clock": self.steps, "optimizer_steps": [self.steps]}


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


@pytest.mark.parametrize("step", [1, 5, 12])
@pytest.mark.parametrize("has_clock", [True, False], ids=["former callback", "own loop"])
def test_a_training_with_masks_on_the_model_is_gone_on_with(
    tmp_path: Path, step: int, has_clock: bool
) -> None:
    path, whole = tmp_path / "cut.ckpt", Masked()
    make_trainer(tmp_path, Clock(has_clock), SaveAt(path, step, "batch")).fit(whole, loader())
    module, pruning = TinyModule(adamw), ScheduledPruning(RAMP, target_sparsity=0.5)
    trainer = make_trainer(tmp_path, pruning)
    trainer.fit(module, loader(), ckpt_path=path)
    assert pruning.clock == 16
    theirs, ours = whole.state_dict(), module.state_dict()
    assert theirs.keys() == ours.keys()
    assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []
    assert zeros(module.first.weight) == 0.5


def test_a_former_checkpoint_is_evaluated_as_plain(tmp_path: Path) -> None:
    path, module = tmp_path / "former.ckpt", Masked()
    make_trainer(tmp_path, Clock(), SaveAt(path, 16, "batch")).fit(module, loader())
    fresh = EvaluatedModule()
    trainer = make_trainer(tmp_path, ScheduledPruning(RAMP, target_sparsity=0.5))
    trainer.test(fresh, loader(2), ckpt_path=path, verbose=False)
    assert torch.equal(fresh.first.weight, module.first.weight)
    assert zeros(fresh.first.weight) == 0.5
    assert "load_model_state_dict" not in vars(trainer.strategy)


class TorchPruned(TinyModule):
    """Trains with the masks of torch's own functions."""

    def __init__(self) -> None:
        super().__init__(adamw)
        for layer in (self.first, self.second):
            prune.l1_unstructured(layer, "weight", amount=0.5)


def sparse_checkpoint(root: Path) -> Path:
    """Return a checkpoint with half of the weights at 0, and masks of torch's."""
    path = root / "sparse.ckpt"
    make_trainer(root, SaveAt(path, 8, "batch")).fit(TorchPruned(), loader())
    return path


@pytest.mark.parametrize("target", [0.5, 0.25])
def test_zeros_of_a_checkpoint_are_kept_without_a_schedule(tmp_path: Path, target: float) -> None:
    path = sparse_checkpoint(tmp_path)
    pruning = ScheduledPruning(target_sparsity=target, masks_from="zeros")
    module = TinyModule(adamw)
    trainer = make_trainer(tmp_path, pruning, max_epochs=3)
    trainer.fit(module, loader(), ckpt_path=path)
    assert trainer.global_step == 24
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(module.first.weight == 0, saved["first.weight_mask"] == 0)
    assert not torch.equal(module.first.weight, saved["first.weight_orig"])
    assert pruning.pruner is not None
    assert pruning.pruner.at_target()


def test_too_few_zeros_are_refused(tmp_path: Path) -> None:
    path = sparse_checkpoint(tmp_path)
    pruning = ScheduledPruning(target_sparsity=0.75, masks_from="zeros")
    with pytest.raises(PruningError, match=r"first\.weight.*64 zeros of 128"):
        make_trainer(tmp_path, pruning, max_epochs=3).fit(
            TinyModule(adamw), loader(), ckpt_path=path
        )


def test_a_schedule_goes_on_from_the_zeros_of_a_checkpoint(tmp_path: Path) -> None:
    class Shares(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
            shares.append(count_sparsity(module).achieved)

    shares: list[float] = []
    pruning = ScheduledPruning(linear_ramp(16), target_sparsity=0.75, masks_from="zeros")
    module = TinyModule(adamw)
    make_trainer(tmp_path, pruning, Shares(), max_epochs=3).fit(
        module, loader(), ckpt_path=sparse_checkpoint(tmp_path)
    )
    assert (shares[0], shares[-1]) == (0.5, 0.75)
    assert shares == sorted(shares)


def test_a_word_that_says_no_start_is_refused() -> None:
    with pytest.raises(ValueError, match=r"masks_from is 'zero'; allowed: schedule, zeros"):
        ScheduledPruning(masks_from="zero")  # type: ignore[arg-type]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_the_callback_begins_anew(tmp_path: Path, copied: Any) -> None:
    module, pruning = TinyModule(), ScheduledPruning(linear_ramp(12), target_sparsity=0.5)
    make_trainer(tmp_path, pruning).fit(module, loader())
    twin = copied(pruning)
    assert (twin.pruner, twin.clock) == (None, 0)
    other = TinyModule()
    make_trainer(tmp_path, twin).fit(other, loader())
    assert zeros(other.first.weight) == 0.5
    assert pruning.pruner is not None
    assert pruning.pruner.model is module
