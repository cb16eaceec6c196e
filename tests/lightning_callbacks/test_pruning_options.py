"""What the callback adds to the pruner: optimizers, functional calls, criteria, warnings."""

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.errors import DivergedWeightError, UnreachableSparsityWarning
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import (
    OverflowModule,
    TinyModule,
    float16,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)


def decaying(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.5)


class DenseValues(pl.Callback):
    """Keeps masks and the dense values of what they prune, as they were after each batch."""

    def __init__(self, pruning: ScheduledPruning) -> None:
        self.pruning = pruning
        self.kept: list[list[tuple[Tensor, Tensor]]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        assert self.pruning.pruner is not None
        state = self.pruning.pruner.state_dict()["masks"]
        values = []
        for tensor in pruned_tensors(pl_module):
            mask, weight = tensor.impl.mask.clone(), tensor.original.detach().clone()
            assert not weight[~mask].any()
            weight[~mask] = state[tensor.name].get("dense", torch.zeros(0))
            values.append((weight, mask))
        self.kept.append(values)

    def pruned_values_moved(self) -> bool:
        """Return whether a weight moved in a step in which it was pruned before and after."""
        for before, after in zip(self.kept, self.kept[1:], strict=False):
            for (weight, mask), (moved, mask_after) in zip(before, after, strict=True):
                still = ~mask & ~mask_after
                if not torch.equal(weight[still], moved[still]):
                    return True
        return False


@pytest.mark.parametrize("accumulate", [1, 2])
def test_optimizers_leave_pruned_weights_alone_by_default(tmp_path: Path, accumulate: int) -> None:
    pruning = ScheduledPruning(linear_ramp(5), target_sparsity=0.5)
    values = DenseValues(pruning)
    trainer = make_trainer(tmp_path, pruning, values, accumulate_grad_batches=accumulate)
    trainer.fit(TinyModule(decaying), loader())
    assert not values.pruned_values_moved()
    assert len(values.kept) == 16


def test_skipped_steps_of_a_scaler_move_nothing(tmp_path: Path) -> None:
    pruning = ScheduledPruning(linear_ramp(5), 0.5)
    values = DenseValues(pruning)
    trainer = make_trainer(tmp_path, pruning, values, plugins=[float16()])
    trainer.fit(OverflowModule({2, 3}, optimizer=decaying), loader())
    assert not values.pruned_values_moved()


class FunctionalModule(TinyModule):
    """Hands a parameter of its own to ``linear``, and has a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 8))
        self.unused = nn.Linear(8, 8)
        self.example_input_array = torch.zeros(2, 8)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(nn.functional.linear(features, self.kernel))


@pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning")
def test_functional_calls_are_followed_when_asked(tmp_path: Path) -> None:
    module = FunctionalModule()
    pruning = ScheduledPruning(linear_ramp(4), 0.5, follow_calls=True)
    make_trainer(tmp_path, pruning).fit(module, loader())
    names = {tensor.name for tensor in pruned_tensors(module)}
    assert names == {"kernel", "first.weight", "second.weight"}
    assert [zeros(weight) for weight in (module.kernel, module.first.weight)] == [0.5, 0.5]

    by_type = FunctionalModule()
    make_trainer(tmp_path, ScheduledPruning(linear_ramp(4), 0.5)).fit(by_type, loader())
    names = {tensor.name for tensor in pruned_tensors(by_type)}
    assert names == {"first.weight", "second.weight", "unused.weight"}


def test_following_needs_an_input(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match="example_input_array is None"):
        make_trainer(tmp_path, ScheduledPruning(follow_calls=True)).fit(TinyModule(), loader())


def config_of(**spec: Any) -> dict[str, Any]:
    return {"global_config": {"op_state_spec": {"*": {"target_sparsity": 0.5, **spec}}}}


@pytest.mark.parametrize("plugins", [None, [float16()]], ids=["float32", "scaled"])
def test_the_gradient_criterion_prunes_what_matters_least(tmp_path: Path, plugins: Any) -> None:
    module = TinyModule()
    # Features that are always 0 give their weights no gradient.
    data = loader()
    data.dataset.tensors[0][:, :4] = 0
    pruning = ScheduledPruning(
        linear_ramp(6, update_frequency=2), config=config_of(pruning_algo="taylor")
    )
    make_trainer(tmp_path, pruning, plugins=plugins).fit(module, data)
    # A unit that is dead from the start has no gradient either, hence not all and none.
    assert zeros(module.first.weight[:, :4]) > 0.9 > 0.1 > zeros(module.first.weight[:, 4:])
    assert zeros(module.first.weight) == zeros(module.second.weight) == 0.5


def test_a_sparsity_out_of_reach_is_said_before_training_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = {"pruning_scheme": {"type": "channel_structured", "axis": 0}, "target_sparsity": 0.1}
    with pytest.warns(UnreachableSparsityWarning, match=r"second\.weight +4x16 .*10\.00% +0\.00%"):
        make_trainer(tmp_path, ScheduledPruning(config=config_of(**scheme))).fit(
            TinyModule(), loader()
        )
    # Any warning is an error here.
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    pruning = ScheduledPruning(config=config_of(**scheme))
    pruning._prepare(TinyModule())


def test_a_weight_that_becomes_nan_ends_the_training_at_the_next_mask(tmp_path: Path) -> None:
    class Diverging(TinyModule):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * torch.nan if self.trainer.global_step == 3 else loss

    trainer = make_trainer(tmp_path, ScheduledPruning(linear_ramp(6), target_sparsity=0.5))
    with pytest.raises(DivergedWeightError, match=r"'first\.weight', 'second\.weight'"):
        trainer.fit(Diverging(), loader())
    assert trainer.global_step == 4


def test_a_copy_of_a_pruned_module_is_not_taken_for_the_module(tmp_path: Path) -> None:
    module, pruning = TinyModule(), ScheduledPruning(linear_ramp(16), target_sparsity=0.5)
    make_trainer(tmp_path, pruning).fit(module, loader())
    twin = copy.deepcopy(module)
    assert not any(pruned_tensors(twin))
    make_trainer(tmp_path, pruning).fit(twin, loader())
    assert pruning.pruner is not None
    assert (pruning.pruner.model, pruning.clock) == (twin, 16)


def test_another_callback_prunes_a_pruned_module_from_the_beginning(tmp_path: Path) -> None:
    module, first = TinyModule(), ScheduledPruning(linear_ramp(16), target_sparsity=0.5)
    make_trainer(tmp_path, first).fit(module, loader())
    second = ScheduledPruning(linear_ramp(16), target_sparsity=0.75)
    make_trainer(tmp_path, second).fit(module, loader())
    assert second.clock == 16
    assert zeros(module.first.weight) == 0.75
    # The first one is told by the masks that it is no longer the one.
    make_trainer(tmp_path, first).fit(module, loader())
    assert (first.clock, zeros(module.first.weight)) == (16, 0.5)


class Exchange(pl.Callback):
    """Puts another optimizer in place after the first epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.strategy.optimizers = [decaying(pl_module.parameters())]


def test_another_optimizer_in_mid_training_goes_on_with_the_clock(tmp_path: Path) -> None:
    module, pruning = TinyModule(), ScheduledPruning(linear_ramp(16), target_sparsity=0.5)
    values = DenseValues(pruning)
    trainer = make_trainer(tmp_path, Exchange(), pruning, values)
    trainer.fit(module, loader())
    assert pruning.pruner is not None
    assert pruning.pruner.step_count == 16
    assert zeros(module.first.weight) == 0.5
    assert not values.pruned_values_moved()
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
