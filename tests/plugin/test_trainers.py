"""What a job gives its Trainers: in this process, by Lightning's own entry points."""

import copy
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, read_write

from coreai_opt.config.errors import ConfigError
from coreai_opt.plugin.fits import Fits, fits_of
from coreai_opt.pruning import PruningError
from coreai_opt.pruning.config import ConstantSparsitySchedule
from lightning_callbacks import ScheduledPruning
from lightning_callbacks.pruned_weights import WeightsBelowTargetWarning
from tests.helpers.lightning import EvaluatedModule, TinyModule, loader, make_trainer, zeros
from tests.plugin.conftest import Job

HALF = "prune.target_sparsity=0.5"


def names(trainer: pl.Trainer) -> list[str]:
    return [type(callback).__name__ for callback in trainer.callbacks]  # type: ignore[attr-defined]


def fitted(folder: Path, *callbacks: pl.Callback, **settings: Any) -> TinyModule:
    module = TinyModule()
    make_trainer(folder, *callbacks, **settings).fit(module, loader(8))
    return module


class Nothing(pl.Callback):
    """Some callback of the app's."""


GIVEN: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "an empty list": list,
    "a list": lambda: [Nothing()],
    "one": Nothing,
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN.keys())
def test_every_trainer_is_given_ours(job: Job, tmp_path: Path, given: Callable[[], Any]) -> None:
    module = TinyModule()
    with job("+prune=poly", HALF, "prune.power=1"):
        trainer = pl.Trainer(
            callbacks=given(),
            max_epochs=2,
            accelerator="cpu",
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        assert names(trainer)[-1] == "JobCallback"
        trainer.fit(module, loader(8))
    ours = ["JobCallback", "ScheduledPruning", "TargetGate", "PrunedWeights"]
    assert names(trainer)[-4:] == ours
    pruning: Any = trainer.callbacks[-3]  # type: ignore[attr-defined]
    assert (pruning.interval, pruning.config.global_config.sparsity_schedule.power) == (
        "percent",
        1,
    )
    assert (zeros(module.first.weight), zeros(module.second.weight)) == (0.5, 0.5)


def test_without_the_line_a_trainer_is_given_nothing(job: Job, tmp_path: Path) -> None:
    assert names(make_trainer(tmp_path)) == []
    for typed in ([], ["+x=${nothing}"], ["+pruned=${nothing}", "+prunes=1"]):
        with job(*typed):
            assert names(make_trainer(tmp_path)) == []
    with job("+prune=poly"):
        pass
    assert names(make_trainer(tmp_path)) == []


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        (["prune.gate=false"], ["JobCallback", "ScheduledPruning", "PrunedWeights"]),
        (["prune.schedule=none"], ["JobCallback", "PrunedWeights"]),
        (
            ["prune.schedule=none", "prune.monitor=true"],
            ["JobCallback", "PrunedWeights", "SparsityMonitor"],
        ),
    ],
    ids=["without the gate", "the dense control", "counted"],
)
def test_what_is_asked_for_is_given(
    job: Job, tmp_path: Path, typed: list[str], ours: list[str]
) -> None:
    with job("+prune=poly", HALF, *typed):
        trainer = make_trainer(tmp_path)
        module = TinyModule()
        trainer.fit(module, loader(8))
    assert names(trainer) == ours
    is_dense = "prune.schedule=none" in typed
    assert zeros(module.first.weight) == (0.0 if is_dense else 0.5)
    assert (tmp_path / "job" / "sparsity.csv").exists() == ("prune.monitor=true" in typed)
    assert (tmp_path / "job" / "weights.pt").exists()


def test_two_trainers_of_a_job_prune_both_their_modules(job: Job, tmp_path: Path) -> None:
    with job("+prune=constant", HALF) as config:
        modules = [fitted(tmp_path), fitted(tmp_path)]
        fits = fits_of(config.hydra.runtime.output_dir)
    assert [zeros(module.first.weight) for module in modules] == [0.5, 0.5]
    assert (fits.trainers, fits.any) == (2, True)


def test_callbacks_that_somebody_puts_back_are_joined_again(job: Job, tmp_path: Path) -> None:
    module = TinyModule()
    with job("+prune=constant", HALF):
        trainer: Any = make_trainer(tmp_path)
        before = list(trainer.callbacks)
        trainer.fit(module, loader(8))
        joined = trainer.callbacks
        trainer.callbacks = before
        trainer.fit(module, loader(8))
    assert zeros(module.first.weight) == 0.5
    assert trainer.callbacks == joined


def test_a_trainer_fits_twice(job: Job, tmp_path: Path) -> None:
    with job("+prune=constant", HALF):
        trainer, module = make_trainer(tmp_path, max_epochs=1), TinyModule()
        trainer.fit(module, loader(8))
        before = names(trainer)
        trainer.fit_loop.max_epochs = 2
        trainer.fit(module, loader(8))
    assert names(trainer) == before
    assert zeros(module.first.weight) == 0.5


def test_a_trainer_in_another_thread(job: Job, tmp_path: Path) -> None:
    modules: list[TinyModule] = []
    with job("+prune=constant", HALF) as config:
        thread = threading.Thread(target=lambda: modules.append(fitted(tmp_path)))
        thread.start()
        thread.join()
        assert fits_of(config.hydra.runtime.output_dir).any
    assert zeros(modules[0].first.weight) == 0.5


class Own(TinyModule):
    """Brings a ScheduledPruning by its own hook."""

    def configure_callbacks(self) -> Any:
        return ScheduledPruning(ConstantSparsitySchedule(), target_sparsity=0.25)


@pytest.mark.parametrize("where", ["the list", "the module"])
def test_a_trainer_keeps_the_pruning_that_it_has(
    job: Job, tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = [] if where == "the module" else [ScheduledPruning(target_sparsity=0.25)]
    module = Own() if where == "the module" else TinyModule()
    with job("+prune=poly", HALF) as config, caplog.at_level(logging.INFO):
        trainer = make_trainer(tmp_path, *own)
        trainer.fit(module, loader(8))
        assert fits_of(config.hydra.runtime.output_dir).any
    assert zeros(module.first.weight) == 0.25
    assert names(trainer).count("ScheduledPruning") == 1
    said = [one.getMessage() for one in caplog.records if one.name.startswith("coreai_opt")]
    assert said == ["this Trainer keeps the ScheduledPruning that it has"]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_is_that_of_a_trainer_with_our_callback(job: Job, tmp_path: Path) -> None:
    with job("+prune=constant", HALF):
        trainer = make_trainer(tmp_path, max_epochs=1)
        trainer.fit(TinyModule(), loader(8))
        trainer.save_checkpoint(tmp_path / "its.ckpt")
    pruning = ScheduledPruning(ConstantSparsitySchedule(), target_sparsity=0.5, interval="percent")
    module = TinyModule()
    make_trainer(tmp_path, pruning, max_epochs=2).fit(
        module, loader(8), ckpt_path=tmp_path / "its.ckpt", weights_only=False
    )
    assert zeros(module.first.weight) == 0.5
    assert pruning.clock == 100


def test_jobs_of_one_process_are_told_apart(job: Job, tmp_path: Path) -> None:
    with job("+prune=constant", HALF, name="one") as config:
        fitted(tmp_path)
        assert fits_of(config.hydra.runtime.output_dir).any
    with job("+prune=constant", HALF, name="two") as config:
        make_trainer(tmp_path)
        fits = fits_of(config.hydra.runtime.output_dir)
        assert (fits.trainers, fits.any) == (1, False)


class Starting(TinyModule):
    """Keeps the weights that its first batch meets."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.started = self.first.weight.detach().clone()


def test_weights_to_start_from_are_there_before_masks(job: Job, tmp_path: Path) -> None:
    dense = fitted(tmp_path)
    torch.save(dense.state_dict(), tmp_path / "dense.pt")
    with job("+prune=constant", HALF, f"prune.init_from={tmp_path}/dense.pt", "prune.begin_step=0"):
        module = Starting()
        assert not torch.equal(module.first.weight, dense.first.weight)
        make_trainer(tmp_path, max_epochs=1).fit(module, loader(8))
        assert zeros(module.started) == 0.5
        assert torch.equal(module.started, dense.first.weight * (module.started != 0))
        # What goes on from a checkpoint has its weights from there.
        module, trainer = TinyModule(), make_trainer(tmp_path, max_epochs=1)
        trainer.fit(module, loader(8))
        trainer.save_checkpoint(tmp_path / "later.ckpt")
        again = TinyModule()
        make_trainer(tmp_path, max_epochs=1).fit(
            again, loader(8), ckpt_path=tmp_path / "later.ckpt", weights_only=False
        )
    assert torch.equal(again.first.weight, module.first.weight)


def test_weights_of_another_model_are_refused(job: Job, tmp_path: Path) -> None:
    torch.save({"other.weight": torch.ones(2, 2)}, tmp_path / "other.pt")
    with (
        job("+prune=constant", f"prune.init_from={tmp_path}/other.pt"),
        pytest.raises(ConfigError, match=r"init_from=.*other\.pt does not fit the model; missing"),
    ):
        fitted(tmp_path)


REFUSED = {
    "no such layer": ("prune.dense=[frist]", r"'frist' matches no module with a prunable weight"),
    "no such type": (
        "prune.dense=[torch.nn.Conv2d]",
        r"'torch\.nn\.Conv2d' is the type of no module with a prunable weight",
    ),
    "no such class": (
        "prune.dense=[torch.nn.Lienar]",
        r"'torch\.nn\.Lienar' is the type of no module.*did you mean 'torch\.nn\.Linear'\?$",
    ),
    "steps": ("prune.interval=step", r"the ramp cannot end inside .* after 70 steps .* has 16;"),
    "epochs": ("prune.interval=epoch", r"the ramp cannot end inside .* after 70 epochs .* has 2;"),
}


@pytest.mark.parametrize(("typed", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_only_the_model_can_tell_is_one_sentence(
    job: Job, tmp_path: Path, typed: str, sentence: str
) -> None:
    with (
        job("+prune=poly", typed),
        pytest.raises((PruningError, ConfigError), match=sentence) as refused,
    ):
        fitted(tmp_path)
    assert "\n" not in str(refused.value)


class Embeddings(TinyModule):
    """Has nothing that could be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = None  # type: ignore[assignment]
        self.only = torch.nn.Embedding(4, 4)


def test_a_model_of_which_nothing_is_prunable_is_one_sentence(job: Job, tmp_path: Path) -> None:
    with job("+prune=poly"), pytest.raises(PruningError, match=r"^nothing to prune: ") as refused:
        make_trainer(tmp_path).fit(Embeddings(), loader(8))
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:.*below the target")
def test_a_debug_config_runs(job: Job, tmp_path: Path) -> None:
    with job("+prune=poly", HALF):
        fitted(tmp_path, fast_dev_run=True)
    with job("+prune=poly", HALF, "prune.interval=step"), pytest.warns(UserWarning, match="cut sh"):
        fitted(tmp_path, fast_dev_run=True)


def test_a_bad_point_of_a_sweep_fails_where_its_trainer_is_made(job: Job, tmp_path: Path) -> None:
    with (
        job("+prune=poly", "prune.power=-1"),
        pytest.raises(ConfigError, match=r"^prune\.power=-1: should be greater than 0; allowed: "),
    ):
        make_trainer(tmp_path)


def test_a_fit_in_another_process_is_noticed(tmp_path: Path) -> None:
    import multiprocessing

    fits = Fits()
    process = multiprocessing.get_context("spawn").Process(target=fits.record)
    process.start()
    process.join()
    assert fits.any
    fits.forget()
    assert not fits.any


def test_a_job_is_repeated_from_the_config_that_it_has_saved(job: Job, tmp_path: Path) -> None:
    with job("+prune=constant", HALF) as config:
        saved = OmegaConf.to_yaml({"prune": config.prune})
    with job(config=saved, name="again"):
        module = fitted(tmp_path)
    assert zeros(module.first.weight) == 0.5
    with job(config="prune: {schedule: cosine, gate: true}\n", name="of its own"):
        assert names(make_trainer(tmp_path)) == []


def test_a_config_that_is_composed_alone_has_the_trainers_directory(
    job: Job, tmp_path: Path
) -> None:
    with job("+prune=constant", HALF, "prune.monitor=true") as config:
        with read_write(config.hydra):
            config.hydra.runtime.output_dir = "???"
        HydraConfig.instance().set_config(config)
        assert zeros(fitted(tmp_path).first.weight) == 0.5
    assert {"weights.pt", "sparsity.csv"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("typed", ["++prune.power=2", "+coreai_prune.dense=[x]"])
def test_a_knob_without_an_option_is_refused(job: Job, tmp_path: Path, typed: str) -> None:
    with (
        job(typed),
        pytest.raises(ConfigError, match="no schedule is chosen"),
    ):
        make_trainer(tmp_path)
    with job("++prune.amount=2"):
        assert names(make_trainer(tmp_path)) == []


def test_a_copied_trainer_is_one_of_the_job(job: Job, tmp_path: Path) -> None:
    with job("+prune=constant", HALF) as config:
        trainer = copy.deepcopy(make_trainer(tmp_path))
        trainer.fit(TinyModule(), loader(8))
        assert fits_of(config.hydra.runtime.output_dir).any


def test_another_trainer_knows_what_was_asked_of_the_weights_it_tests(
    job: Job, tmp_path: Path
) -> None:
    dense = EvaluatedModule()
    with job("+prune=constant", HALF):
        pruned = EvaluatedModule()
        make_trainer(tmp_path).fit(pruned, loader(8), loader(8))
        make_trainer(tmp_path).test(pruned, loader(8), verbose=False)
        with pytest.warns(WeightsBelowTargetWarning, match="weights in memory: sparsity 0.0000 of"):
            make_trainer(tmp_path).test(dense, loader(8), verbose=False)


def test_an_error_about_a_layer_says_which_knob_leaves_it_dense(job: Job, tmp_path: Path) -> None:
    module: Any = TinyModule()
    torch.nn.utils.parametrizations.weight_norm(module.first)
    with job("+prune=constant", HALF), pytest.raises(PruningError) as raised:
        make_trainer(tmp_path).fit(module, loader(8))
    assert raised.value.__notes__ == [
        "module_name_configs={NAME: None} is dense=[NAME] among the knobs"
    ]
