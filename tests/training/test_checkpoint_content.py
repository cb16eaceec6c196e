"""What checkpoints hold, and that nothing but tensors and plain values is made from them."""

import argparse
import ast
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint

from coreai_opt.config.errors import ConfigError, RunFailedError
from coreai_opt.training.checkpoint_content import PlainHyperparameters
from lightning_callbacks._resume.checkpoint_files import checkpoint_files, write_checkpoint
from lightning_callbacks._resume.unsafe_globals import ForeignObjectsWarning, foreign_in_value
from tests.conftest import ROOT
from tests.helpers.quick_runs import QUICK, QUICK_FOR_THEIRS
from tests.helpers.same_runs import record_of
from tests.helpers.stopping import Stop, run_in
from tests.helpers.warmups import STEPS, Job, job

__all__ = ["job"]

THEIRS = '''
import argparse
import pytorch_lightning as pl
import torch
from their_code import Lit, Net


class Keeping(Lit):
    """Keeps all that it is given, as people write it."""

    def __init__(self, optimizer, width=8, act=torch.nn.functional.relu, args=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(width)
        self.make = optimizer

    def configure_optimizers(self):
        return self.make(self.parameters())


class Mark:
    def __init__(self, text="kept"):
        self.text = text


class Marking(Lit):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["mark"] = Mark()


class Trusting(Marking):
    def __init__(self):
        super().__init__()
        torch.serialization.add_safe_globals([Mark])
'''

SCORE = "objective.name=val/score"


class Evil:
    """Makes a directory when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self._made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._made),)


@pytest.fixture
def theirs(user_module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_models.py").write_text(THEIRS)
    monkeypatch.delitem(__import__("sys").modules, "their_models", raising=False)
    return "their_models"


@pytest.fixture
def run_theirs(compose_config: Any, tmp_path: Path, theirs: str) -> Callable[..., dict[str, Any]]:
    def make(name: str, *overrides: str) -> dict[str, Any]:
        target = f"model._target_={theirs}.{name}"
        run_in(compose_config, tmp_path / "run", *QUICK_FOR_THEIRS, target, SCORE, *overrides)
        return record_of(tmp_path / "run")

    return make


@pytest.fixture
def safe_globals() -> Any:
    before = torch.serialization.get_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def interrupted(compose_config: Any, directory: Path) -> None:
    Stop.at = [4]
    with pytest.raises(SystemExit):
        run_in(compose_config, directory, *QUICK)


def poisoned(folder: Path, made: Path, **how: Any) -> Path:
    """Put what runs code into a run's newest checkpoint; its name says that it is whole."""
    content = torch.load(checkpoint_files(folder)[0].path)
    content["callbacks"]["more"] = Evil(made)
    write_checkpoint(folder, 9, lambda path: torch.save(content, path, **how), True, 2)
    return checkpoint_files(folder)[0].path


@pytest.mark.parametrize("by_path", [True, False], ids=["resume=PATH", "resume=auto"])
def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(
    compose_config: Any, tmp_path: Path, by_path: bool
) -> None:
    interrupted(compose_config, tmp_path / "run")
    path = poisoned(tmp_path / "run" / "resume", tmp_path / "made")
    with pytest.raises(ConfigError) as caught:
        run_in(compose_config, tmp_path / "run", *QUICK, *[f"resume={path}"] * by_path)
    (problem,) = caught.value.problems
    assert str(problem) == (
        f"the checkpoint {path} holds more than tensors and plain values (posix.mkdir), and that "
        "is not unpickled; allowed: to leave it out of what the model and its callbacks save, or "
        "to name it in the model's module, torch.serialization.add_safe_globals([CLASS])"
    )
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_that_hides_its_code_is_not_run_either(
    compose_config: Any, tmp_path: Path
) -> None:
    # No zip: what it names is not found out before it is loaded, and loading refuses it.
    interrupted(compose_config, tmp_path / "run")
    poisoned(tmp_path / "run" / "resume", tmp_path / "made", _use_new_zipfile_serialization=False)
    with pytest.raises(RunFailedError, match=r"Weights only load failed.*GLOBAL posix.mkdir"):
        run_in(compose_config, tmp_path / "run", *QUICK)
    assert not (tmp_path / "made").exists()


def test_hyperparameters_that_are_functions_stay_out_of_checkpoints(
    run_theirs: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    # Before the run said what it leaves out, it failed when it read its best checkpoint.
    said = r"do not keep the hyperparameter 'act' \(torch.nn.functional.relu\): only tensors"
    with pytest.warns(ForeignObjectsWarning, match=said) as heard:
        record = run_theirs("Keeping", "+model.width=6")
    assert len([one for one in heard if one.category is ForeignObjectsWarning]) == 1
    assert record["status"] == "completed"
    content = torch.load(tmp_path / "run" / record["checkpoints"]["best"])
    assert content["hyper_parameters"] == {"width": 6, "args": None}


def test_hyperparameters_of_omegaconf_become_plain(tmp_path: Path) -> None:
    class Net(pl.LightningModule):
        def __init__(self, cfg: Any) -> None:
            super().__init__()
            self.save_hyperparameters(cfg)

    module = Net(OmegaConf.create({"width": 3, "of": {"depth": [1, 2]}}))
    checkpoint: dict[str, Any] = {
        "hyper_parameters": module.hparams,
        "hparams_type": type(module.hparams),
    }
    PlainHyperparameters().on_save_checkpoint(pl.Trainer(logger=False), module, checkpoint)
    assert checkpoint == {"hyper_parameters": {"width": 3, "of": {"depth": [1, 2]}}}
    assert foreign_in_value(checkpoint) == []


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"lr": 0.1, "of": [(1, "a"), None, True, torch.ones(2)]}, []),
        (argparse.Namespace(lr=0.1), ["argparse.Namespace"]),
        ({"of": [print, Path("a")]}, ["builtins.print", "pathlib.PosixPath"]),
        (lambda: 0, ["builtins.function"]),
        (torch.nn.Linear(1, 1).float, ["builtins.getattr", "torch.nn.modules.linear.Linear"]),
    ],
    ids=["plain", "namespace", "nested", "unpicklable", "method"],
)
def test_what_is_foreign(value: Any, names: list[str]) -> None:
    assert set(names) <= set(foreign_in_value(value))
    assert bool(names) == bool(foreign_in_value(value))


def test_objects_that_a_model_keeps_are_told_at_the_first_checkpoint_and_refused(
    run_theirs: Callable[..., dict[str, Any]],
) -> None:
    told = r"no run can go on from its checkpoints: .* plain values \(their_models.Mark\)"
    with (
        pytest.warns(ForeignObjectsWarning, match=told) as heard,
        pytest.raises(ConfigError, match=r"last.ckpt holds more .* \(their_models.Mark\)"),
    ):
        run_theirs("Marking")
    assert len([one for one in heard if one.category is ForeignObjectsWarning]) == 1


@pytest.mark.usefixtures("safe_globals")
def test_objects_that_a_model_vouches_for_are_loaded(
    run_theirs: Callable[..., dict[str, Any]],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ForeignObjectsWarning)
        assert run_theirs("Trusting")["status"] == "completed"


def test_a_warm_up_that_nobody_would_load_fails(job: Job) -> None:
    class Keeping(ModelCheckpoint):
        def state_dict(self) -> dict[str, Any]:
            return {"of": argparse.Namespace()}

    module = __import__("sys").modules[__name__]
    module.Keeping = Keeping  # type: ignore[attr-defined]
    more = f"+callbacks.more={{_target_:{__name__}.Keeping,save_top_k:0}}"
    with (
        pytest.warns(ForeignObjectsWarning),
        pytest.raises(RunFailedError, match=r"more than plain values \(argparse.Namespace\)"),
    ):
        job("warmup", *STEPS, more)


def loads(file: Path) -> list[ast.Call]:
    called = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    return [
        call
        for call in called
        if ast.unparse(call.func).endswith(("torch.load", "trainer.fit", ".load_from_checkpoint"))
    ]


def test_every_file_that_is_loaded_is_loaded_with_weights_only() -> None:
    found = 0
    for package in ("coreai_opt", "lightning_callbacks"):
        for file in (ROOT / package).rglob("*.py"):
            for call in loads(file):
                said = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert said.get("weights_only") == "True", f"{file}: {ast.unparse(call)}"
                found += 1
    assert found == 6
