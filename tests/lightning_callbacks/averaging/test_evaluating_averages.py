"""What is evaluated after a training with averages: the average, under its masks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    StochasticWeightAveraging,
    WeightAveraging,
)

from coreai_opt.pruning.model.stats import count_sparsity
from lightning_callbacks import TargetSparsityCheckpoint
from tests.helpers.averaging import DECAY, assert_same, pruned, state, train
from tests.helpers.lightning import EvaluatedModule, loader, make_trainer

SAVING = {"enable_checkpointing": True}


class Best(TargetSparsityCheckpoint):
    def __init__(self, root: Path) -> None:
        super().__init__(root, monitor="val_loss", save_on_train_epoch_end=False)


class WatchedModule(EvaluatedModule):
    """Keeps the weight that it was tested with."""

    def on_test_batch_start(self, *args: Any) -> None:
        self.tested = self.first.weight.detach().clone()


@pytest.mark.filterwarnings("ignore:.*loading a checkpoint outside the 'fit' stage")
@pytest.mark.parametrize("process", ["same", "other"])
@pytest.mark.parametrize("verb", ["validate", "test"])
def test_the_best_checkpoint_is_the_average_that_was_validated(
    tmp_path: Path, process: str, verb: str
) -> None:
    best = Best(tmp_path)
    callbacks = [EMAWeightAveraging(decay=DECAY), pruned(), best]
    module, trainer = train(tmp_path, *callbacks, make=WatchedModule, max_epochs=3, **SAVING)
    saved = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    if process == "other":
        torch.manual_seed(1)
        module = WatchedModule()
        trainer = make_trainer(tmp_path, EMAWeightAveraging(), pruned(), best, **SAVING)
    evaluate = getattr(trainer, verb)
    found = evaluate(module, loader(2), ckpt_path=best.best_model_path, verbose=False)
    # It is what the model holds afterwards, too, to be folded and exported.
    assert_same(module.state_dict(), saved)
    assert count_sparsity(module).achieved == 0.5
    if verb == "validate":
        assert found[0]["val_loss"] == pytest.approx(float(best.best_model_score))
    else:
        assert torch.equal(module.tested, module.first.weight)


@pytest.mark.parametrize("make", [WeightAveraging, lambda: StochasticWeightAveraging(0.01, 1)])
def test_a_finalized_model_is_validated_as_it_is(tmp_path: Path, make: Any) -> None:
    pruning = pruned()
    module, trainer = train(tmp_path, pruning, make())
    pruning.pruner.finalize()
    before = state(module)
    trainer.validate(module, loader(2), verbose=False)
    assert_same(state(module), before)
