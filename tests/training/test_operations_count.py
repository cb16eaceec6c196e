"""Operations of a forward pass, counted when a run has ended."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from coreai_opt.models import Classifier
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.training.operations_count import ExampleBatch, count_operations
from coreai_opt.training.run import run
from tests.conftest import Compose


def trainer_with(batch: Any, hook: str = "on_train_batch_start") -> pl.Trainer:
    """A trainer that has seen a batch."""
    callback = ExampleBatch()
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[callback],
    )
    module = pl.LightningModule()
    getattr(callback, hook)(trainer, module, batch, 0)
    getattr(callback, hook)(trainer, module, (torch.ones(5, 999),), 1)
    return trainer


@pytest.fixture
def model() -> Classifier:
    """4 x 6 weights, half of them zero, and 6 x 2."""
    network = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.BatchNorm1d(6), nn.Linear(6, 2))
    nn.init.ones_(network[0].weight)
    nn.init.ones_(network[3].weight)
    network[0].weight.data[:3] = 0
    return Classifier(network)


LABELS = torch.zeros(8)


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_start"])
@pytest.mark.parametrize(
    "batch",
    [
        pytest.param((torch.ones(8, 4), LABELS), id="tuple"),
        pytest.param([torch.ones(8, 4), LABELS], id="list"),
        pytest.param(torch.ones(8, 4), id="tensor"),
    ],
)
def test_one_example_of_the_first_batch_is_counted(
    model: Classifier, batch: Any, hook: str
) -> None:
    counted = count_operations(trainer_with(batch, hook), model)
    assert counted == {"dense": 2 * (24 + 12), "effective": 2 * (12 + 12)}


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param({"x": torch.ones(8, 4)}, id="dict"),
        pytest.param((), id="empty tuple"),
        pytest.param((torch.ones(0, 4), LABELS), id="no example"),
        pytest.param(torch.tensor(1.0), id="no axis"),
        pytest.param(({"x": torch.ones(8, 4)}, LABELS), id="inputs of several parts"),
    ],
)
def test_other_batches_have_no_number(model: Classifier, batch: Any) -> None:
    assert count_operations(trainer_with(batch), model) is None


def test_model_and_random_state_stay_as_they_are(model: Classifier) -> None:
    trainer = trainer_with((torch.ones(8, 4), LABELS))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    model.train()
    model.network[2].eval()
    count_operations(trainer, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.network] == [True, True, False, True]
    assert trainer.callbacks[-1].state_dict() == {}  # type: ignore[attr-defined]


class Refusing(pl.LightningModule):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


def test_a_model_that_cannot_be_called_with_an_example_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = trainer_with((torch.ones(8, 4), LABELS))
    assert count_operations(trainer, Refusing(ValueError("batches\nof 8 only"))) is None
    told = capsys.readouterr().out
    assert told == "operations are not counted, ValueError: batches of 8 only\n"
    assert count_operations(trainer, pl.LightningModule()) is None
    assert "NotImplementedError" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ZeroDivisionError()])
def test_what_is_no_sign_of_that_is_raised(error: BaseException) -> None:
    trainer = trainer_with((torch.ones(8, 4), LABELS))
    with pytest.raises(type(error)):
        count_operations(trainer, Refusing(error))


def test_without_a_batch_there_is_no_number(model: Classifier) -> None:
    trainer = trainer_with(None)
    assert count_operations(trainer, model) is None


def test_a_run_records_its_operations(compose_config: Compose) -> None:
    overrides = ("experiment=quick", "trainer.max_epochs=1", "total_iters=10", "model.hidden=[8]")
    cfg = compose_config(*overrides)
    run(cfg)
    earlier = ExistingRun.at(Path(cfg.paths.run_dir))
    assert earlier is not None
    layers = earlier.record["sparsity"]["layers"]
    dense, effective = (2 * sum(layer[key] for layer in layers) for key in ("elements", "nonzero"))
    assert earlier.record["operations"] == {"dense": dense, "effective": effective}
    assert effective < 0.2 * dense
