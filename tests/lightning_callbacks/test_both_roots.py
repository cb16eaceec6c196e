"""The callbacks in trainers of both import roots of Lightning."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lightning_callbacks
from coreai_opt.pruning import PruningError, count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.lightning import linear_ramp, loader

pytest.importorskip("lightning", reason="needs the extra lightning")

import lightning.pytorch as unified
import pytorch_lightning as standalone

from lightning_callbacks import lightning_pytorch

pytestmark = [
    pytest.mark.apart,
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
]

ROOTS: dict[str, tuple[Any, Any]] = {
    "pytorch_lightning": (standalone, lightning_callbacks),
    "lightning.pytorch": (unified, lightning_pytorch),
}
# Of 8 steps each.
SCORES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]


class Stop(Exception):
    """The run is to end at a step boundary."""


def make_module(pl: Any, by_hand: bool = False) -> Any:
    """Return a module of the root; its validation gets worse from the first epoch on."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = not by_hand
            self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
            loss = (self.second(self.first(batch[0]).relu()) - batch[1]).square().mean()
            self.log("loss", loss, on_epoch=True, on_step=False)
            if not by_hand:
                return loss
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return None

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("val", SCORES[self.current_epoch])

        def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("zeros", float((self.first.weight == 0).float().mean()))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    torch.manual_seed(5)
    return Module()


class Run:
    """A training to 0.75 in 20 of 48 steps with all the callbacks of a root."""

    def __init__(self, root: str, folder: Path, *more: Any, stop: int | None = None) -> None:
        self.pl, ours = ROOTS[root]
        self.folder = folder
        self.pruning = ours.ScheduledPruning(linear_ramp(20), target_sparsity=0.75)
        self.monitor = ours.SparsityMonitor(every_n_steps=1)
        self.best = ours.TargetSparsityCheckpoint(folder / "best", monitor="val", mode="max")
        self.stopping = ours.TargetSparsityEarlyStopping("val", mode="max", patience=2)

        def interruption() -> Stop | None:
            return Stop() if self.pruning.clock == stop else None

        self.resumable = ours.ResumableCheckpoint(folder / "resume", interruption=interruption)
        callbacks = [self.pruning, self.monitor, self.stopping, self.best, self.resumable, *more]
        loggers = importlib.import_module(f"{root}.loggers")
        self.trainer = self.pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=6,
            callbacks=callbacks,
            default_root_dir=folder,
            logger=loggers.CSVLogger(folder, name="", version=""),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def fit(self, path: Path | None = None, by_hand: bool = False) -> "Run":
        self.module = make_module(self.pl, by_hand)
        self.trainer.fit(self.module, loader(), loader(2), ckpt_path=path)
        return self

    def written(self) -> list[str]:
        return [(self.folder / name).read_text() for name in ("sparsity.csv", "metrics.csv")]


@pytest.fixture(params=ROOTS)
def root(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_both_roots_train_to_the_same_weights_and_files(tmp_path: Path) -> None:
    one, other = (Run(root, tmp_path / root).fit() for root in ROOTS)
    assert same(one.module, other.module)
    assert one.written() == other.written()
    # At target from step 19 on, in the third epoch: its validation is the best, and two more count.
    for run in (one, other):
        assert run.trainer.current_epoch == 5
        assert count_sparsity(run.module).achieved == 0.75
        assert run.trainer.checkpoint_callback is run.best
        assert run.trainer.early_stopping_callback is run.stopping
        assert Path(run.best.best_model_path).name == "epoch=2-step=24.ckpt"


@pytest.mark.parametrize("stop", [12, 16], ids=["mid-epoch", "epoch"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["automatic", "by-hand"])
def test_a_run_goes_on_exactly(tmp_path: Path, root: str, stop: int, by_hand: bool) -> None:
    whole = Run(root, tmp_path / "whole").fit(by_hand=by_hand)
    with pytest.raises(Stop):
        Run(root, tmp_path / "cut", stop=stop).fit(by_hand=by_hand)
    resumed = Run(root, tmp_path / "cut")
    resumed.fit(resumed.resumable.newest(), by_hand=by_hand)
    assert same(resumed.module, whole.module)
    assert resumed.written() == whole.written()


def test_a_checkpoint_of_one_root_goes_on_in_the_other(tmp_path: Path, root: str) -> None:
    (other,) = (known for known in ROOTS if known != root)
    whole = Run(root, tmp_path / "whole").fit()
    with pytest.raises(Stop):
        Run(root, tmp_path / "cut", stop=12).fit()
    resumed = Run(other, tmp_path / "cut")
    resumed.fit(resumed.resumable.newest())
    assert same(resumed.module, whole.module)


def test_the_best_checkpoint_is_evaluated_under_its_masks(tmp_path: Path, root: str) -> None:
    run = Run(root, tmp_path).fit()
    assert run.trainer.test(run.module, loader(2), ckpt_path="best", verbose=False) == [
        {"zeros": 0.75}
    ]


def test_the_app_s_own_callbacks_wait_for_the_target(tmp_path: Path, root: str) -> None:
    pl, ours = ROOTS[root]
    callbacks = importlib.import_module(f"{root}.callbacks")
    best = callbacks.ModelCheckpoint(tmp_path / "own", "{epoch}", monitor="val", mode="max")
    stop = callbacks.EarlyStopping("val", mode="max", patience=2)
    pruning = ours.ScheduledPruning(linear_ramp(20), target_sparsity=0.75)
    gate, weights = ours.TargetGate(), ours.PrunedWeights()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=6,
        callbacks=[best, stop, pruning, gate, weights],
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(make_module(pl), loader(), loader(2))
    assert (Path(best.best_model_path).name, stop.stopped_epoch) == ("epoch=2.ckpt", 4)
    assert (gate.state_key, weights.state_key) == ("TargetGate", "PrunedWeights")
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert float((state["first.weight"] == 0).float().mean()) == 0.75


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("EMAWeightAveraging", {"decay": 0.5}),
        ("StochasticWeightAveraging", {"swa_lrs": 0.01, "swa_epoch_start": 2}),
    ],
)
def test_averages_have_the_masks(
    tmp_path: Path, root: str, kind: str, arguments: dict[str, Any]
) -> None:
    callbacks = importlib.import_module(f"{root}.callbacks")
    run = Run(root, tmp_path, getattr(callbacks, kind)(**arguments)).fit()
    assert count_sparsity(run.module).achieved == 0.75


def test_the_progress_bar_has_the_column(tmp_path: Path, root: str) -> None:
    ours = ROOTS[root][1]
    run, bar = Run(root, tmp_path).fit(), ours.SparsityProgressBar()
    assert isinstance(bar, importlib.import_module(f"{root}.callbacks").RichProgressBar)
    assert bar.get_metrics(run.trainer, run.module)["sparsity"] == "0.750/0.75"


def test_strategies_that_shard_are_refused(tmp_path: Path, root: str) -> None:
    strategies = importlib.import_module(f"{root}.strategies")
    run = Run(root, tmp_path)
    run.trainer._accelerator_connector.strategy = object.__new__(strategies.FSDPStrategy)
    with pytest.raises(PruningError, match="FSDPStrategy shards the weights"):
        run.pruning.setup(run.trainer, make_module(run.pl), "fit")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("TargetSparsityCheckpoint", {"monitor": "val"}),
        ("TargetSparsityEarlyStopping", {"monitor": "val"}),
        ("SparsityProgressBar", {}),
    ],
)
def test_what_a_trainer_of_the_other_root_would_not_know_is_refused(
    tmp_path: Path, root: str, name: str, arguments: dict[str, Any]
) -> None:
    (other,) = (known for known in ROOTS if known != root)
    pl, ours = ROOTS[other][0], ROOTS[root][1]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[getattr(ours, name)(**arguments)],
        logger=False,
        enable_checkpointing=name == "TargetSparsityCheckpoint",
        default_root_dir=tmp_path,
        enable_progress_bar=name == "SparsityProgressBar",
        enable_model_summary=False,
    )
    wanted = {"pytorch_lightning": "lightning_callbacks"}.get(
        other, "lightning_callbacks.lightning_pytorch"
    )
    message = f"one of {root}, and the trainer one of {other}.*from {wanted} import {name}"
    with pytest.raises(PruningError, match=message):
        trainer.fit(make_module(pl), loader(), loader(2))


def test_the_callbacks_of_the_package_prune_in_either_trainer(tmp_path: Path, root: str) -> None:
    pl = ROOTS[root][0]
    pruning = lightning_callbacks.ScheduledPruning(linear_ramp(8), target_sparsity=0.75)
    monitor = lightning_callbacks.SparsityMonitor()
    resumable = lightning_callbacks.ResumableCheckpoint(tmp_path / "resume")
    module = make_module(pl)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[pruning, monitor, resumable],
        logger=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(), loader(2))
    assert pruning.clock == 16
    assert len(list(pruned_tensors(module))) == 2
    assert monitor.report is not None
    assert monitor.report.achieved == 0.75
    path = resumable.newest()
    assert path is not None
    assert torch.load(path, weights_only=True)["global_step"] == 16


@pytest.mark.parametrize("name", lightning_pytorch.__all__)
def test_each_callback_is_of_both(name: str) -> None:
    kind = getattr(lightning_pytorch, name)
    assert issubclass(kind, unified.Callback)
    assert kind.__name__ == name
    assert kind.__doc__ == getattr(lightning_callbacks, name).__doc__
    assert sorted(lightning_pytorch.__all__) == sorted(lightning_callbacks.__all__)
