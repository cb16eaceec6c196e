"""Trainings with averages of their weights, and averages made by hand."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePrunerConfig
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import EvaluatedModule, linear_ramp, loader, make_trainer

Weights = dict[str, Tensor]


RAMP = 9  # the step at which the target is reached; two epochs have 16


DECAY = 0.75


def mean(history: list[Weights]) -> Weights:
    return {
        name: torch.stack([weights[name].double() for weights in history]).mean(0).float()
        for name in history[0]
    }


FIRST = pytest.mark.parametrize("pruning_first", [True, False], ids=["pruning first", "last"])


class History(pl.Callback):
    """Keeps the weights after each batch, and the masks."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []
        self.masks: list[Weights] = []

    def on_train_batch_end(self, trainer: Any, pl_module: pl.LightningModule, *args: Any) -> None:
        self.weights.append(dense(pl_module))
        self.masks.append(masks(pl_module))


def dense(module: nn.Module) -> Weights:
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


def masks(module: nn.Module) -> Weights:
    return {tensor.name: tensor.impl.mask.clone() for tensor in pruned_tensors(module)}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert list(ours) == list(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def arranged(first: bool, pruning: pl.Callback, average: pl.Callback) -> list[pl.Callback]:
    return [pruning, average] if first else [average, pruning]


def train(root: Path, *callbacks: pl.Callback, seed: int = 0, **given: Any) -> Any:
    """Train for two epochs of eight steps; all that is in ``given`` is for ``fit`` or the trainer.

    Returns:
        The module, and the trainer.
    """
    torch.manual_seed(seed)
    module = given.pop("make", EvaluatedModule)()
    path, data = given.pop("ckpt_path", None), given.pop("validation", loader(2))
    trainer = make_trainer(root, *callbacks, num_sanity_val_steps=0, **given)
    trainer.fit(module, loader(), data, ckpt_path=path)
    return module, trainer


def pruned(reached: int = RAMP) -> ScheduledPruning:
    """Prune to a half along a line, until the given step; nothing comes back.

    So it makes no difference whether an average takes in weights before their masks change or after
    that, and its weights are those that were never pruned.
    """
    config = MagnitudePrunerConfig.uniform(0.5)
    config.allow_regrowth = False
    return ScheduledPruning(linear_ramp(reached + 1), config=config)


def under(found: Weights, of: Weights) -> Weights:
    """Return averages at 0 where a mask prunes."""
    return {
        name: torch.where(of[name], value, 0.0) if name in of else value
        for name, value in found.items()
    }


def state(module: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in module.state_dict().items()}
