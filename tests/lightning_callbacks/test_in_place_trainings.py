"""Trainings that are begun, saved, evaluated and gone on with in ways of other people's apps."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import (
    FIRST_LAYER,
    SaveAt,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)


class OnlyTested(TinyModule):
    """A module that is never validated."""

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", self.loss(batch))


class Readings(pl.Callback):
    """Keeps what the clock shows after each batch; stands behind the callback that prunes."""

    def __init__(self, pruning: ScheduledPruning) -> None:
        self.pruning = pruning
        self.kept: list[int] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.kept.append(self.pruning.clock)


def pruned(steps: int = 6, target: float = 0.5, **kwargs: Any) -> ScheduledPruning:
    return ScheduledPruning(linear_ramp(steps), target, **kwargs)


def shares(module: TinyModule) -> list[float]:
    return [zeros(module.first.weight), zeros(module.second.weight)]


@pytest.mark.parametrize("done", [5, 8, 16])
def test_hundredths_are_those_of_what_is_left_of_a_dense_training(
    tmp_path: Path, done: int
) -> None:
    path = tmp_path / "dense.ckpt"
    dense = make_trainer(tmp_path, SaveAt(path, done, "batch"), max_epochs=2 if done == 16 else 1)
    dense.fit(TinyModule(), loader())
    if done == 8:  # at the end of an epoch, not of its last batch
        dense.save_checkpoint(path)
    pruning = pruned(100, interval="percent")
    readings = Readings(pruning)
    trainer = make_trainer(tmp_path, pruning, readings, max_epochs=3)
    trainer.fit(TinyModule(), loader(), ckpt_path=path)
    left = 24 - done
    assert readings.kept == [100 * batch // left for batch in range(1, left + 1)]


@pytest.mark.parametrize(
    ("interval", "length", "algo", "step"),
    [
        ("step", 18, "default", 1),
        ("step", 18, "taylor", 6),
        ("percent", 80, "default", 11),
        ("percent", 80, "taylor", 1),
    ],
)
def test_masks_that_were_due_when_somebody_saved_are_made_before_the_next_batch(
    tmp_path: Path, interval: Any, length: int, step: int, algo: str
) -> None:
    path = tmp_path / "early.ckpt"
    spec = {"target_sparsity": 0.75, "pruning_algo": algo}
    config = {"global_config": {"op_state_spec": {"*": spec}}}
    ramp = linear_ramp(length - 1, begin_step=1)

    def train(seed: int, *callbacks: pl.Callback, **given: Any) -> tuple[TinyModule, Any]:
        torch.manual_seed(seed)
        module = TinyModule()
        pruning = ScheduledPruning(ramp, config=config, interval=interval)
        trainer = make_trainer(tmp_path, *callbacks, pruning, max_epochs=3)
        trainer.fit(module, loader(), **given)
        return module, pruning

    whole, pruning = train(0, SaveAt(path, step, "batch"))
    resumed, again = train(1, ckpt_path=path)
    assert shares(resumed) == [0.75, 0.75]
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert again.clock == pruning.clock


def test_masks_that_were_due_at_an_interrupt_are_made_when_the_fit_goes_on(
    tmp_path: Path,
) -> None:
    class Interrupts(SaveAt):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == self.step:
                raise RuntimeError("stop")

    pruning = pruned()
    module = TinyModule()
    with pytest.raises(RuntimeError, match="stop"):
        make_trainer(tmp_path, Interrupts(tmp_path, 3, "batch"), pruning).fit(module, loader())
    assert pruning.clock == 2
    readings = Readings(pruning)
    make_trainer(tmp_path, pruning, readings, max_epochs=1).fit(module, loader())
    assert readings.kept == list(range(4, 12))
    assert shares(module) == [0.5, 0.5]


def later_format(checkpoint: dict[str, Any]) -> None:
    checkpoint["callbacks"]["ScheduledPruning"]["masks"]["format"] = 2


@pytest.mark.parametrize("change", [None, later_format], ids=["other config", "later format"])
def test_a_checkpoint_that_was_pruned_otherwise_is_evaluated_as_plain(
    tmp_path: Path, change: Any
) -> None:
    path, other = tmp_path / "other.ckpt", OnlyTested()
    others = ScheduledPruning(linear_ramp(6), config=FIRST_LAYER)
    trainer = make_trainer(tmp_path, others)
    trainer.fit(other, loader())
    trainer.save_checkpoint(path)
    if change is not None:
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)
    pruning, module = pruned(), OnlyTested()
    trainer = make_trainer(tmp_path, pruning)
    trainer.fit(module, loader())
    trainer.test(module, loader(), ckpt_path=path, verbose=False)
    assert shares(module) == [0.5, 0]
    # What was loaded is pruned from the beginning.
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, loader())
    assert (pruning.clock, shares(module)) == (8, [0.5, 0.5])


def test_masks_that_do_not_fit_leave_a_fit_that_has_ended_as_it_was(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, ScheduledPruning(linear_ramp(4), config=FIRST_LAYER))
    trainer.fit(TinyModule(), loader(4))
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    pruning, module = pruned(), TinyModule()
    make_trainer(tmp_path, pruning).fit(module, loader())
    trainer = make_trainer(tmp_path, pruning, max_epochs=3)
    with pytest.raises(ValueError, match="do not fit what this config prunes"):
        trainer.fit(module, loader(), ckpt_path=tmp_path / "other.ckpt")
    assert pruning.clock == 16


def test_evaluating_another_module_leaves_the_masks_of_the_one_that_is_trained(
    tmp_path: Path,
) -> None:
    pruning, module = pruned(12), OnlyTested()
    trainer = make_trainer(tmp_path, pruning)
    trainer.fit(module, loader())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    other = OnlyTested()
    trainer.test(other, loader(), ckpt_path=tmp_path / "own.ckpt", verbose=False)
    assert shares(other) == [0.5, 0.5]
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, loader())
    assert (pruning.clock, shares(module)) == (24, [0.5, 0.5])


def test_weights_alone_are_no_weights_of_the_masks_that_are_there(tmp_path: Path) -> None:
    dense = OnlyTested()
    trainer = make_trainer(tmp_path)
    trainer.fit(dense, loader())
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    pruning, module = pruned(), OnlyTested()
    trainer = make_trainer(tmp_path, pruning)
    trainer.fit(module, loader())
    trainer.test(module, loader(), ckpt_path=tmp_path / "weights.ckpt", verbose=False)
    assert shares(module) == [0, 0]
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, loader())
    assert (pruning.clock, shares(module)) == (8, [0.5, 0.5])


def test_a_checkpoint_without_states_of_callbacks_begins_a_pruning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "dense.ckpt"
    trainer = make_trainer(tmp_path)
    trainer.fit(TinyModule(), loader())
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["callbacks"]
    torch.save(checkpoint, path)
    pruning, module = pruned(100, interval="percent"), TinyModule()
    readings = Readings(pruning)
    with caplog.at_level("INFO"):
        trainer = make_trainer(tmp_path, pruning, readings, max_epochs=3)
        trainer.fit(module, loader(), ckpt_path=path)
    assert "has no masks: its weights are taken" in caplog.text
    assert readings.kept == [100 * batch // 8 for batch in range(1, 9)]


def norm_of(module: TinyModule) -> float:
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())


def masked_norm_of(module: TinyModule) -> float:
    """Return the norm that the gradients have once they are masked; it changes none."""
    masks = {tensor.original: tensor.impl.mask for tensor in pruned_tensors(module)}
    total = torch.zeros(())
    for weight in module.parameters():
        if weight.grad is not None:
            total += (weight.grad * masks.get(weight, True)).square().sum()
    return float(total.sqrt())


class Clipping(TinyModule):
    """Clips as soon as gradients are there."""

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[tuple[float, float]] = []

    def on_after_backward(self) -> None:
        self.norms.append((norm_of(self), masked_norm_of(self)))
        torch.nn.utils.clip_grad_norm_(self.parameters(), 0.1)


class Clips(pl.Callback):
    """Clips before the optimizer steps; stands before the callback that prunes."""

    def __init__(self, hook: str) -> None:
        self.norms: list[tuple[float, float]] = []
        self.hook = hook

    def on_after_backward(self, trainer: pl.Trainer, module: Any) -> None:
        if self.hook == "backward":
            self.norms.append((norm_of(module), masked_norm_of(module)))

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        if self.hook == "step":
            self.norms.append((norm_of(module), masked_norm_of(module)))


@pytest.mark.parametrize("who", ["module", "backward", "step"])
@pytest.mark.parametrize("algo", ["default", "taylor"])
def test_whoever_clips_early_sees_masked_gradients(tmp_path: Path, who: str, algo: str) -> None:
    spec = {"target_sparsity": 0.5, "pruning_algo": algo}
    ramp = linear_ramp(6, begin_step=1)
    pruning = ScheduledPruning(ramp, config={"global_config": {"op_state_spec": {"*": spec}}})
    module = Clipping() if who == "module" else TinyModule()
    clips = [] if who == "module" else [Clips(who)]
    make_trainer(tmp_path, *clips, pruning, accumulate_grad_batches=2, max_epochs=3).fit(
        module, loader()
    )
    (norms,) = [each.norms for each in (module, *clips) if hasattr(each, "norms")]
    assert len(norms) == (12 if who == "step" else 24)
    assert all(norm == pytest.approx(masked) for norm, masked in norms)
    assert shares(module) == [0.5, 0.5]
