"""The masked weights as a plain file, and what is said of weights below the target."""

import logging
import os
import pickle
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from coreai_opt.pruning import MagnitudePruner, PruningError
from lightning_callbacks import PrunedWeights, ScheduledPruning, TargetGate
from lightning_callbacks.pruned_weights import WeightsBelowTargetWarning
from tests.helpers.gating import NeverAtTarget
from tests.helpers.lightning import EvaluatedModule, linear_ramp, loader, make_trainer, zeros
from tests.helpers.lightning_modules import Adversarial, CompiledPart, Late, Recurrent

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:the training ended at .* below the target sparsity"),
]

PHASES = ("test", "validate", "predict")


def fit(
    root: Path, *callbacks: pl.Callback, module: Any = None, target: float = 0.9, **settings: Any
) -> tuple[pl.Trainer, Any]:
    module = EvaluatedModule() if module is None else module
    pruning = [ScheduledPruning(linear_ramp(10), target)] if target else []
    trainer = make_trainer(root, *pruning, *callbacks, **settings)
    is_validated = isinstance(module, EvaluatedModule)
    trainer.fit(module, loader(), loader(2) if is_validated else None)
    return trainer, module


def best_of(root: Path, **settings: Any) -> ModelCheckpoint:
    return ModelCheckpoint(root / "kept", monitor="val_loss", **settings)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "weights in" in line]


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_weights_are_plain_and_masked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best, ours = best_of(tmp_path), PrunedWeights()
    _, module = fit(tmp_path, best, TargetGate(), ours, enable_checkpointing=True)
    assert ours.path == tmp_path / "weights.pt"
    weights = torch.load(ours.path, weights_only=True)
    assert weights.keys() == module.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())
    # 115 of 128 and 57 of 64.
    assert zeros(weights["first.weight"]) == 115 / 128
    assert lines(caplog) == [
        f"pruned: sparsity 0.8958 of 192 weights (target 0.9000), weights in {ours.path}; "
        f"best checkpoint {best.best_model_path} has 0.8958"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "weights.pt"]


def test_a_dense_model_is_written_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, module = fit(tmp_path, PrunedWeights(tmp_path / "deep" / "er"), target=0)
    path = tmp_path / "deep" / "er" / "weights.pt"
    assert torch.equal(torch.load(path, weights_only=True)["first.weight"], module.first.weight)
    assert lines(caplog) == [f"not pruned, no weight has a mask: weights in {path}"]


def test_each_trainer_of_a_process_writes_a_file(tmp_path: Path) -> None:
    one, other = PrunedWeights(), PrunedWeights()
    for callback, name in ((one, "weights.pt"), (other, "weights-2.pt"), (one, "weights.pt")):
        fit(tmp_path, callback)
        assert callback.path == tmp_path / name
    copied = pickle.loads(pickle.dumps(one))
    fit(tmp_path, copied)
    assert copied.path == tmp_path / "weights-3.pt"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_new_process_overwrites(tmp_path: Path) -> None:
    path, earlier = tmp_path / "weights.pt", time.time() - 3600
    fit(tmp_path, PrunedWeights())
    os.utime(path, (earlier, earlier))
    fit(tmp_path, ours := PrunedWeights())
    assert ours.path == path
    assert len(torch.load(path, weights_only=True)) == 4


@pytest.mark.parametrize("kind", ["a state dict", "a model", "text"])
def test_a_file_of_somebody_else_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    path, earlier = tmp_path / "weights.pt", time.time() - 3600
    if kind == "text":
        path.write_text("mine")
    else:
        layer = torch.nn.Linear(2, 2)
        torch.save(layer.state_dict() if kind == "a state dict" else layer, path)
    os.utime(path, (earlier, earlier))
    before = path.read_bytes()
    fit(tmp_path, ours := PrunedWeights())
    assert path.read_bytes() == before
    assert ours.path == tmp_path / "weights-2.pt"


def test_a_quick_run_for_errors_writes_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, PrunedWeights(), ScheduledPruning(None, 0.9), target=0, fast_dev_run=True)
    (line,) = lines(caplog)
    assert line.startswith("pruned: sparsity 0.8958 of 192 weights")
    assert (tmp_path / "weights.pt").exists()


class Breaks(pl.Callback):
    def __init__(self, error: type[BaseException]) -> None:
        self.error, self.has_broken = error, False

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.has_broken = True
        raise self.error


@pytest.mark.filterwarnings("ignore:Detected KeyboardInterrupt")  # Lightning 2.2 returns then
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_fit_that_is_broken_off_writes_nothing(
    tmp_path: Path, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    ours = PrunedWeights()
    breaks = Breaks(error)
    with suppress(error, SystemExit):
        fit(tmp_path, ours, breaks)
    assert breaks.has_broken
    assert (list(tmp_path.iterdir()), ours.path, lines(caplog)) == ([], None, [])


def test_a_full_disk_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blocked").write_text("in the way")
    with pytest.raises(OSError, match="blocked"):
        fit(tmp_path, PrunedWeights(tmp_path / "blocked"))


@pytest.mark.parametrize("folder", ["s3://bucket/run", "memory://run"])
def test_another_machine_s_directory_is_refused_before_the_training(
    tmp_path: Path, folder: str
) -> None:
    with pytest.raises(PruningError, match=rf"cannot write to {folder}, which is no local"):
        fit(tmp_path, PrunedWeights(folder))


def test_a_dense_best_is_told_of_in_a_warning(tmp_path: Path) -> None:
    best = best_of(tmp_path, save_top_k=1, every_n_train_steps=2)
    text = r"the best checkpoint is below the target: sparsity 0.8958 of 192 weights \(target "
    file = rf"0.9000\), weights in .*weights.pt; best checkpoint {tmp_path}.*ckpt has 0\.[0-8]"
    with pytest.warns(WeightsBelowTargetWarning, match=text + file) as caught:
        fit(tmp_path, best, _Worse(), PrunedWeights(), enable_checkpointing=True)
    assert len([one for one in caught if one.category is WeightsBelowTargetWarning]) == 1


class _Worse(pl.Callback):
    """Makes what is validated worse with each epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        module.log("val_loss", float(trainer.global_step), on_step=True)


def test_a_target_that_is_not_reached_is_told_of(tmp_path: Path) -> None:
    text = r"the weights are below the target: sparsity 0.5000 of 192 weights \(target 1.0000\)"
    pruning = ScheduledPruning(NeverAtTarget(), 1.0)
    with pytest.warns(WeightsBelowTargetWarning, match=text):
        fit(tmp_path, PrunedWeights(), pruning, target=0)


class Foreign:
    """What only Python's own unpickling would make, which may run anything."""

    def __reduce__(self) -> Any:
        return print, ("unpickled",)


class _Hides(pl.Callback):
    """Puts an object of somebody's own into each checkpoint."""

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["own"] = Foreign()


def test_a_best_checkpoint_with_other_objects_is_counted_and_they_are_not_unpickled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    best = best_of(tmp_path)
    fit(tmp_path, best, TargetGate(), _Hides(), PrunedWeights(), enable_checkpointing=True)
    (line,) = lines(caplog)
    assert line.endswith(f"{best.best_model_path} has 0.8958")
    assert "unpickled" not in capsys.readouterr().out


class _Removes(pl.Callback):
    def on_train_end(self, trainer: Any, *args: Any) -> None:
        Path(trainer.checkpoint_callback.best_model_path).unlink()


def test_a_best_checkpoint_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = best_of(tmp_path)
    fit(tmp_path, best, TargetGate(), _Removes(), PrunedWeights(), enable_checkpointing=True)
    assert re.search(r"cannot be read safely \(.*No such file", lines(caplog)[0])


def test_no_best_checkpoint_is_told_of_where_one_was_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = best_of(tmp_path, every_n_epochs=9)
    fit(tmp_path, best, PrunedWeights(), enable_checkpointing=True)
    assert lines(caplog)[0].endswith("weights.pt; no best checkpoint was chosen")


@pytest.mark.parametrize("kind", [Late, CompiledPart, Recurrent, Adversarial])
def test_weights_of_other_modules(
    tmp_path: Path, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, PrunedWeights(), module=kind(), target=0.5)
    assert lines(caplog)[0].startswith("pruned: sparsity 0.5000 of ")


def test_a_model_with_masks_of_a_magnitude_pruner(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = EvaluatedModule()
    pruner = MagnitudePruner(module)
    pruner.prepare((torch.zeros(1, 8),))
    fit(tmp_path, PrunedWeights(), module=module, target=0)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert zeros(weights["first.weight"]) == 0.5
    assert lines(caplog)[0].startswith("pruned: sparsity 0.5000 of 192 weights (target 0.5000)")


@pytest.fixture
def dense_file(tmp_path: Path) -> Path:
    """The checkpoint of a run to 0.9, with one of its weights made dense by somebody."""
    trainer, _ = fit(tmp_path / "run", PrunedWeights())
    path = tmp_path / "run" / "own.ckpt"
    trainer.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["first.weight"] += 1
    torch.save(content, tmp_path / "dense.ckpt")
    return path


@pytest.mark.parametrize("phase", PHASES)
def test_another_process_knows_the_target_from_the_checkpoint(
    tmp_path: Path, dense_file: Path, phase: str
) -> None:
    words = {"test": "test", "validate": "validation", "predict": "prediction"}
    trainer = make_trainer(tmp_path, PrunedWeights())
    run = getattr(trainer, phase)
    run(EvaluatedModule(), loader(2), ckpt_path=dense_file)  # at target: no word
    file = tmp_path / "dense.ckpt"
    text = rf"the {words[phase]} runs below the target, on {file}: sparsity 0.2969 of 192 weights"
    with pytest.warns(WeightsBelowTargetWarning, match=text + r" \(target 0.9000\)") as caught:
        run(EvaluatedModule(), loader(2), ckpt_path=file)
    assert len([one for one in caught if one.category is WeightsBelowTargetWarning]) == 1


@pytest.mark.parametrize("phase", PHASES)
def test_weights_in_memory_below_the_target(tmp_path: Path, phase: str) -> None:
    trainer, module = fit(tmp_path, PrunedWeights())
    run = getattr(trainer, phase)
    run(module, loader(2))
    with pytest.warns(WeightsBelowTargetWarning, match="on the weights in memory: sparsity 0.0000"):
        run(EvaluatedModule(), loader(2))


def test_a_dense_file_tested_in_the_process_of_the_training(tmp_path: Path) -> None:
    dense, _ = fit(tmp_path / "dense", target=0)
    dense.save_checkpoint(tmp_path / "dense.ckpt")
    trainer, module = fit(tmp_path, PrunedWeights())
    with pytest.warns(
        WeightsBelowTargetWarning, match=f"on {tmp_path}/dense.ckpt: sparsity 0.0000"
    ):
        trainer.test(module, loader(2), ckpt_path=tmp_path / "dense.ckpt")


def test_a_dense_control_is_tested_without_a_word(tmp_path: Path) -> None:
    trainer, module = fit(tmp_path, PrunedWeights(), target=0)
    trainer.test(module, loader(2))
    make_trainer(tmp_path, PrunedWeights()).test(EvaluatedModule(), loader(2))
    assert PrunedWeights().state_dict() == {}
