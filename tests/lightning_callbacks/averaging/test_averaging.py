"""Lightning's averaging callbacks beside pruning, against averages made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    WeightAveraging,
)
from torch.optim.swa_utils import (
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_multi_avg_fn,
)

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.model.stats import count_sparsity
from lightning_callbacks import ScheduledPruning
from tests.helpers.averaging import (
    DECAY,
    FIRST,
    RAMP,
    History,
    Weights,
    arranged,
    assert_same,
    dense,
    masks,
    mean,
    pruned,
    state,
    train,
    under,
)
from tests.helpers.lightning import SaveAt, TinyModule, loader, pruned_from
from tests.helpers.lightning_modules import LateModule, SetUpModule


def decaying(history: list[Weights]) -> Weights:
    average = {name: weight.double() for name, weight in history[0].items()}
    for weights in history[1:]:
        for name, weight in weights.items():
            average[name] = DECAY * average[name] + (1 - DECAY) * weight.double()
    return {name: weight.float() for name, weight in average.items()}


class EveryThird(WeightAveraging):
    """A user's own: it averages every third step, from the third on, and at the end of epochs."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None or (step_idx is not None and step_idx % 3 == 2)


class LateAveraging(EveryThird):
    """A user's own that makes its average only at the fifth step, in the middle of the ramp."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pass

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == 5:
            self._average_model = AveragedModel(pl_module, use_buffers=True, **self._kwargs)
        if trainer.global_step > 5:
            super().on_train_batch_end(trainer, pl_module, *args)


# After which step an average takes in the weights; a half = after the validation that follows it.
EVERY_STEP = [float(step) for step in range(1, 17)]
THIRDS = [3, 6, 8.5, 9, 12, 15, 16.5]
Kind = tuple[Callable[[], WeightAveraging], Any, list[float]]
KINDS: dict[str, Kind] = {
    "mean": (WeightAveraging, mean, EVERY_STEP),
    "parameters": (lambda: WeightAveraging(use_buffers=False), mean, EVERY_STEP),
    "ema": (lambda: EMAWeightAveraging(decay=DECAY), decaying, EVERY_STEP),
    "multi": (lambda: WeightAveraging(multi_avg_fn=get_swa_multi_avg_fn()), mean, EVERY_STEP),
    "multi ema": (
        lambda: WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(DECAY)),
        decaying,
        EVERY_STEP,
    ),
    "own": (lambda: EveryThird(avg_fn=get_ema_avg_fn(DECAY)), decaying, THIRDS),
    "own, parameters": (lambda: EveryThird(use_buffers=False), mean, THIRDS),
    "late": (LateAveraging, mean, THIRDS[1:]),
}
EACH = pytest.mark.parametrize(
    ("kind", "pruning_first"), [(kind, index % 2 == 0) for index, kind in enumerate(KINDS)]
)


@EACH
def test_a_training_ends_with_averages_under_its_masks(
    tmp_path: Path, kind: str, pruning_first: bool
) -> None:
    make, average, updates = KINDS[kind]
    alone = History()
    train(tmp_path, pruned(), alone)
    pruning, seen = pruned(), History()
    module, _ = train(tmp_path, *arranged(pruning_first, pruning, make()), seen)

    # The training itself is the one without averaging.
    for weights, others in zip(seen.weights, alone.weights, strict=True):
        assert_same(weights, others)
    assert_same(masks(module), alone.masks[-1])
    expected = average([seen.weights[int(step) - 1] for step in updates])
    expected = under(expected, alone.masks[-1])
    torch.testing.assert_close(dense(module), expected, rtol=1e-5, atol=1e-6)
    assert pruning.pruner is not None
    assert pruning.pruner.at_target()
    assert pruning.pruner.step_count == 16
    assert count_sparsity(module).achieved == 0.5


class Cyclic:
    """Prunes more and less, so that weights come back."""

    def compute_sparsity(self, step: int, target: float, previous: float | None = None) -> float:
        return target if step % 3 else target / 2


@EACH
def test_an_average_is_masked_where_weights_come_and_go(
    tmp_path: Path, kind: str, pruning_first: bool
) -> None:
    class Peek(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            average = averaging._average_model
            for name, mask in masks(pl_module).items():
                if average is not None:
                    assert not average.module.get_parameter(name)[~mask].any()
                    seen.append(int((~mask).sum()))

    seen: list[int] = []
    averaging = KINDS[kind][0]()
    callbacks = arranged(pruning_first, ScheduledPruning(Cyclic(), 0.5), averaging)
    module, _ = train(tmp_path, *callbacks, Peek())
    assert {16, 32, 64} <= set(seen)
    assert count_sparsity(module).achieved == 0.5


@FIRST
@pytest.mark.parametrize("interval", ["epoch", "percent"])
def test_masks_that_reach_the_target_at_the_very_end_are_the_final_ones(
    tmp_path: Path, interval: Any, pruning_first: bool
) -> None:
    pruning = pruned_from({"epoch": 2, "percent": 100}[interval], interval)
    callbacks = arranged(pruning_first, pruning, WeightAveraging(use_buffers=False))
    module, _ = train(tmp_path, *callbacks)
    assert pruning.pruner is not None
    assert pruning.pruner.at_target()
    assert count_sparsity(module).achieved == 0.5


class Swapped(pl.Callback):
    """Keeps what a validation sees, and what is there before and after it."""

    def __init__(self) -> None:
        self.before: list[dict[str, Any]] = []
        self.after: list[dict[str, Any]] = []
        self.inside: list[Any] = []

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.before.append(state(pl_module))

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.inside.append(dense(pl_module))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.after.append(state(pl_module))


@EACH
def test_a_validation_sees_averages_under_the_masks_of_now_and_leaves_no_trace(
    tmp_path: Path, kind: str, pruning_first: bool
) -> None:
    make, average, updates = KINDS[kind]
    seen, swapped = History(), Swapped()
    callbacks = arranged(pruning_first, pruned(), make())
    train(tmp_path, *callbacks, seen, swapped, val_check_interval=0.25, validation=loader(1))
    assert len(swapped.inside) == 8
    for before, after in zip(swapped.before, swapped.after, strict=True):
        assert_same(after, before)
    for steps, weights in zip(range(2, 17, 2), swapped.inside, strict=True):
        done = [int(step) for step in updates if step <= steps]
        if done:
            expected = average([seen.weights[step - 1] for step in done])
            expected = under(expected, seen.masks[steps - 1])
            torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
        assert int((weights["first.weight"] == 0).sum()) == min(steps, RAMP) * 64 // RAMP


@pytest.mark.parametrize(
    ("kind", "step", "pruning_first"),
    [("mean", 2, True), ("own", 5, False), ("own", 13, True), ("own, parameters", 13, False)],
)
def test_a_checkpoint_holds_averages_under_the_masks_of_now(
    tmp_path: Path, kind: str, step: int, pruning_first: bool
) -> None:
    path, seen = tmp_path / "cut.ckpt", History()
    callbacks = arranged(pruning_first, pruned(), KINDS[kind][0]())
    train(tmp_path, *callbacks, seen, SaveAt(path, step, "batch"))
    saved = torch.load(path, weights_only=True)
    average, current = saved["state_dict"], saved["current_model_state"]
    assert list(average) == list(current)
    assert list(average) == list(TinyModule().state_dict())
    for name, mask in seen.masks[step - 1].items():
        assert not average[name][~mask].any()
        assert not current[name][~mask].any()
        assert average[name][mask].all()
    assert saved["callbacks"]["ScheduledPruning"]["clock"] == step


@pytest.mark.parametrize(
    ("kind", "step", "hook"),
    [
        ("mean", 2, "batch"),
        ("parameters", 5, "batch"),
        ("ema", 8, "epoch"),
        ("multi", 13, "batch"),
        ("multi ema", 5, "batch"),
        ("own", 8, "epoch"),
        ("own, parameters", 13, "batch"),
    ],
)
def test_a_resumed_run_ends_as_the_uninterrupted_one(
    tmp_path: Path, kind: str, step: int, hook: str
) -> None:
    path, make = tmp_path / "cut.ckpt", KINDS[kind][0]
    whole, _ = train(tmp_path, pruned(), make(), SaveAt(path, step, hook))
    pruning = pruned()
    resumed, _ = train(tmp_path, make(), pruning, seed=1, ckpt_path=path)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert pruning.pruner is not None
    assert pruning.pruner.at_target()


def test_an_average_that_was_not_loaded_is_masked_all_the_same(tmp_path: Path) -> None:
    class Forgetful(EveryThird):
        def on_load_checkpoint(self, *args: Any) -> None:
            pass

    class Peek(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            assert average._average_model is not None
            for name, mask in masks(pl_module).items():
                assert not average._average_model.module.get_parameter(name)[~mask].any()

    path = tmp_path / "cut.ckpt"
    once = lambda: ScheduledPruning(target_sparsity=0.5)  # noqa: E731
    train(tmp_path, once(), SaveAt(path, 9, "batch"))
    average = Forgetful()
    train(tmp_path, once(), average, Peek(), seed=1, ckpt_path=path)


@FIRST
def test_a_dense_checkpoint_of_an_average_is_gone_on_with(
    tmp_path: Path, pruning_first: bool
) -> None:
    path, pruning = tmp_path / "dense.ckpt", pruned()
    train(tmp_path, WeightAveraging(), SaveAt(path, 5, "batch"))
    module, _ = train(
        tmp_path, *arranged(pruning_first, pruning, WeightAveraging()), ckpt_path=path
    )
    assert (pruning.clock, count_sparsity(module).achieved) == (11, 0.5)


@FIRST
def test_an_average_that_lacks_a_layer_made_in_setup_is_refused(
    tmp_path: Path, pruning_first: bool
) -> None:
    # Lightning copies the module before its setup, and would pair other tensors without a word.
    callbacks = arranged(pruning_first, pruned(), WeightAveraging())
    with pytest.raises(PruningError, match=r"no weight 'second\.weight' .* in the SetUpModule"):
        train(tmp_path, *callbacks, make=SetUpModule, validation=None)


@FIRST
def test_layers_made_in_configure_model_are_averaged_and_pruned(
    tmp_path: Path, pruning_first: bool
) -> None:
    seen = History()
    callbacks = arranged(pruning_first, pruned(), WeightAveraging())
    with pytest.warns(UserWarning, match="overrides the configure_model") as warned:
        module, _ = train(tmp_path, *callbacks, seen, make=LateModule, validation=None)
    assert len([each for each in warned if "configure_model" in str(each.message)]) == 1
    expected = under(mean(seen.weights), masks(module))
    torch.testing.assert_close(dense(module), expected, rtol=1e-5, atol=1e-6)


@FIRST
def test_a_second_fit_averages_again_and_the_copy_has_no_hooks_of_ours(
    tmp_path: Path, pruning_first: bool
) -> None:
    average, pruning, seen = WeightAveraging(), pruned(), History()
    module, trainer = train(tmp_path, *arranged(pruning_first, pruning, average), seen)
    trainer.fit_loop.max_epochs = 4
    seen.weights.clear()
    trainer.fit(module, loader(), loader(2))
    expected = under(mean(seen.weights), masks(module))
    torch.testing.assert_close(dense(module), expected, rtol=1e-5, atol=1e-6)
    assert average._average_model is not None
    ours = {"setup", "configure_model", "on_load_checkpoint"}
    assert not ours & vars(average._average_model.module).keys()


def test_an_average_that_lightning_keeps_elsewhere_is_refused(tmp_path: Path) -> None:
    class Elsewhere(WeightAveraging):
        def __init__(self) -> None:
            super().__init__()
            del self._average_model

        def setup(self, *args: Any, **kwargs: Any) -> None:
            pass

    with pytest.raises(PruningError, match=r"Elsewhere has no _average_model.*allowed: "):
        train(tmp_path, pruned(), Elsewhere())
