"""Strategies and callbacks beside which nothing can be pruned: refused, in one sentence."""

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelPruning
from pytorch_lightning.strategies import DDPStrategy
from torch.nn.utils import prune

from coreai_opt.pruning import MagnitudePruner, PruningError
from coreai_opt.pruning.errors import AlreadyParametrizedError
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import TinyModule, linear_ramp, loader, make_trainer, zeros

pytestmark = [
    # Forking a process whose torch has threads is Lightning's doing.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

COPYING = [
    "ddp_fork",
    "ddp_notebook",
    "ddp_notebook_find_unused_parameters_true",
    DDPStrategy(start_method="fork"),
    pytest.param("ddp_spawn", marks=pytest.mark.slow),
]


def own() -> pl.Callback:
    return ScheduledPruning(linear_ramp(4), target_sparsity=0.5)


@pytest.fixture(autouse=True)
def master_port(monkeypatch: pytest.MonkeyPatch) -> None:
    # Lightning leaves what it has chosen.
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.delenv("MASTER_PORT")


class OwnModelPruning(ModelPruning):
    """A subclass, as apps have them."""


class OwnPruning(ScheduledPruning):
    """A subclass: Lightning refuses two of the same class itself."""


@pytest.mark.parametrize("strategy", COPYING, ids=lambda one: getattr(one, "_start_method", one))
def test_a_fit_in_copies_of_the_process_gives_the_module_its_weights(
    tmp_path: Path, strategy: Any
) -> None:
    module = TinyModule()
    alone = copy.deepcopy(module)
    make_trainer(tmp_path, own(), strategy=strategy, use_distributed_sampler=False).fit(
        module, loader()
    )
    assert (zeros(module.first.weight), zeros(module.second.weight)) == (0.5, 0.5)
    make_trainer(tmp_path, own()).fit(alone, loader())
    assert torch.equal(module.first.weight, alone.first.weight)


class Synchronised(TinyModule):
    """Its loss is the mean over all processes."""

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch), sync_dist=True)


def test_evaluating_in_a_copy_of_the_process_is_allowed(tmp_path: Path) -> None:
    module = Synchronised()
    trainer = make_trainer(tmp_path, own(), strategy="ddp_fork")
    (metrics,) = trainer.test(module, loader(), verbose=False)
    assert metrics["test_loss"] > 0


@pytest.mark.parametrize("kind", [ModelPruning, OwnModelPruning], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("is_first", [False, True], ids=["after ours", "before ours"])
def test_lightnings_own_pruning_beside_ours_is_refused(
    tmp_path: Path, kind: type[ModelPruning], is_first: bool
) -> None:
    other = kind("l1_unstructured", amount=0.5)
    callbacks = [other, own()] if is_first else [own(), other]
    with pytest.raises(PruningError, match=rf"ScheduledPruning and {kind.__name__} .*has to go"):
        make_trainer(tmp_path, *callbacks).fit(TinyModule(), loader())


def test_lightnings_own_pruning_that_a_module_brings_is_refused(tmp_path: Path) -> None:
    class Bringing(TinyModule):
        def configure_callbacks(self) -> Any:
            return [ModelPruning("l1_unstructured", amount=0.5)]

    with pytest.raises(PruningError, match=r"ScheduledPruning and ModelPruning .*has to go"):
        make_trainer(tmp_path, own()).fit(Bringing(), loader())


def test_two_of_ours_are_refused(tmp_path: Path) -> None:
    second = OwnPruning(linear_ramp(4), target_sparsity=0.5)
    with pytest.raises(PruningError, match=r"ScheduledPruning and OwnPruning .*config="):
        make_trainer(tmp_path, own(), second).fit(TinyModule(), loader())
    trainer = make_trainer(tmp_path, own())
    trainer.callbacks.append(own())
    with pytest.raises(PruningError, match=r"two ScheduledPruning .*has to go"):
        trainer.fit(TinyModule(), loader())


def test_masks_of_torchs_own_pruning_are_refused_by_name(tmp_path: Path) -> None:
    module = TinyModule()
    prune.l1_unstructured(module.second, "weight", 0.5)
    with pytest.raises(AlreadyParametrizedError, match=r"'second\.weight' .*prune\.remove") as told:
        make_trainer(tmp_path, own()).fit(module, loader())
    assert "one of the two pruners has to go" in str(told.value)
    prune.remove(module.second, "weight")
    make_trainer(tmp_path, own()).fit(module, loader())
    assert zeros(module.first.weight) == 0.5


def test_masks_of_torchs_own_pruning_on_a_layer_that_is_left_dense_stay(tmp_path: Path) -> None:
    module = TinyModule()
    prune.l1_unstructured(module.second, "weight", 0.25)
    pruning = ScheduledPruning(
        linear_ramp(4),
        config={
            "global_config": {"op_state_spec": {"weight": {"target_sparsity": 0.5}}},
            "module_name_configs": {"second": None},
        },
    )
    make_trainer(tmp_path, pruning).fit(module, loader())
    assert (zeros(module.first.weight), zeros(module.second.weight)) == (0.5, 0.25)


@pytest.mark.parametrize("part", [None, "second"], ids=["whole", "one layer"])
def test_a_module_that_was_prepared_by_hand_is_refused(tmp_path: Path, part: str | None) -> None:
    module = TinyModule()
    MagnitudePruner(module if part is None else getattr(module, part)).prepare()
    with pytest.raises(PruningError, match=r"masks of a MagnitudePruner.*finalize"):
        make_trainer(tmp_path, own()).fit(module, loader())
