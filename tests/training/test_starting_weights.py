"""Runs that start from weights in a file: where it may lie, and what they make of it."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.identity import config_hash
from coreai_opt.config.locations import typed_path
from coreai_opt.config.validation import find_problems
from coreai_opt.models import MLP
from coreai_opt.training.run import run
from tests.conftest import ROOT, Command
from tests.helpers.quick_runs import QUICK, QUICK_FOR_THEIRS

QuickRun = Callable[..., dict[str, Any]]

BAD_PATHS = {
    "nowhere.pt": "init_from=nowhere.pt: there is no such file; allowed: file with the weights",
    "no where/a=b.pt": "init_from=no where/a=b.pt: there is no such file; allowed: ",
    "folder": "init_from=folder: is a directory; allowed: file with the weights to start from",
    "~/nowhere.pt": "init_from=~/nowhere.pt: there is no such file",
    "~nobody-of-that-name/w.pt": "there is no such file",
    "dangling.pt": "there is no such file",
    "file.pt/w.pt": "there is no such file",
    "": "init_from=: string should have at least 1 character; allowed: file with",
    5: "init_from=5: should be a valid string; allowed: file with the weights",
    "x" * 300: "cannot be read, File name too long; allowed: file with",
}


def test_a_path_without_a_file_is_one_sentence(
    compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.pt").touch()
    (tmp_path / "dangling.pt").symlink_to("nothing")
    cfg = compose_config()
    for given, sentence in BAD_PATHS.items():
        cfg.init_from = given
        (problem,) = find_problems(cfg)
        assert problem.key == "init_from"
        assert sentence in problem.sentence


def test_a_path_is_meant_from_where_the_command_is_typed(
    compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pt").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cfg = compose_config()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # as Hydra does, where it is told to
    for given in ("w.pt", "~/w.pt", str(tmp_path / "w.pt")):
        cfg.init_from = given
        assert find_problems(cfg) == []
        assert typed_path(given) == tmp_path / "w.pt"
    monkeypatch.undo()


def test_the_weights_are_part_of_the_experiment(compose_config: Any) -> None:
    config: Any = OmegaConf.to_container(compose_config(), resolve=True)
    assert config["init_from"] is None
    hashes = [config_hash({**config, "init_from": given}) for given in (None, "a.pt", "b.pt")]
    assert len(set(hashes)) == 3
    del config["init_from"]
    assert config_hash(config) == hashes[0], "runs of before there was the knob keep their hash"


DENSE = [item for item in QUICK if not item.startswith("total_iters")] + ["schedule=none"]
STILL = ["trainer.max_epochs=1", "optimizer.lr=1e-12"]


def test_a_run_starts_with_what_the_other_ended_with(compose_config: Any, tmp_path: Path) -> None:
    run(compose_config(*DENSE, run_dir=tmp_path / "dense"))
    dense = json.loads((tmp_path / "dense" / "result.json").read_text())
    assert dense["metrics"]["val/accuracy"] > 0.3, "more than fresh weights have"
    for name in ("weights.pt", "checkpoints/best.ckpt"):
        again = tmp_path / Path(name).name
        run(compose_config(*DENSE, *STILL, f"init_from={tmp_path}/dense/{name}", run_dir=again))
        record = json.loads((again / "result.json").read_text())
        for metric in ("val/accuracy", "test/accuracy"):
            assert record["metrics"][metric] == dense["metrics"][metric]
        assert record["training"] == {"epochs": 1, "steps": 6, "steps_per_epoch": 6}
        assert record["config_hash"] not in (dense["config_hash"], None)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def given_weights(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """Weights of the model of the quick run, which no seed of it makes."""
    torch.manual_seed(123)
    state = MLP([1, 8, 8], 10, [16]).state_dict()
    return saved(state, tmp_path / "given.pt"), state


def kept(weight: Tensor, sparsity: float = 0.9) -> Tensor:
    """Return which weights of a tensor are the largest."""
    pruned = int(weight.numel() * sparsity)
    largest = weight.abs().flatten().argsort(descending=True)[: weight.numel() - pruned]
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[largest] = True
    return mask.reshape(weight.shape)


def test_the_mask_of_step_0_is_that_of_the_given_weights(
    compose_config: Any, tmp_path: Path, given_weights: tuple[Path, dict[str, Tensor]]
) -> None:
    path, state = given_weights
    base = [item for item in QUICK if not item.startswith("total_iters")]
    run(compose_config(*base, "schedule=constant", f"init_from={path}", "optimizer.lr=0.001"))
    exported = torch.load(tmp_path / "run" / "weights.pt")
    for name in ("layers.1.weight", "layers.3.weight"):
        assert torch.equal(exported[name] != 0, kept(state[name])), name
    with (tmp_path / "run" / "sparsity.csv").open(newline="") as file:
        first = next(row for row in csv.DictReader(file) if row["layer"] == "total")
    assert float(first["scheduled"]) == pytest.approx(0.9)


def test_the_clock_of_the_schedule_begins_at_0(
    quick_run: QuickRun, tmp_path: Path, given_weights: tuple[Path, dict[str, Tensor]]
) -> None:
    state = {f"network.{key}": value for key, value in given_weights[1].items()}
    clock = {"ScheduledPruning": {"clock": 18, "optimizer_steps": [18]}}
    late = {"state_dict": state, "global_step": 18, "epoch": 3, "callbacks": clock}
    record = quick_run(f"init_from={saved(late, tmp_path / 'late.ckpt')}")
    assert record["training"] == {"epochs": 3, "steps": 18, "steps_per_epoch": 6}
    with (tmp_path / "run" / "sparsity.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "total"]
    for row in rows:
        share = min(int(row["step"]) / 7, 1)  # of 8 values, the first is that of step 0
        assert float(row["scheduled"]) == pytest.approx(0.9 * (1 - (1 - share) ** 3)), row


def test_a_file_that_does_not_fit_leaves_a_record(
    compose_config: Any, tmp_path: Path, given_weights: tuple[Path, dict[str, Tensor]]
) -> None:
    cfg = compose_config(*QUICK, "model.hidden=[17]", f"init_from={given_weights[0]}")
    with pytest.raises(ConfigError, match=r"\(layers\.1\.weight \[16, 64\] in the file, \[17, 64"):
        run(cfg)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["status"], record["error"]["type"]) == ("failed", "ConfigError")


LATE_MODULE = """
import pytorch_lightning as pl
import torch
from torch import nn


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.make()

    def make(self):
        self.stack = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.stack(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val/score", (self.stack(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class InSetup(Own):
    def __init__(self):
        pl.LightningModule.__init__(self)
        self.stack = None

    def setup(self, stage):
        if self.stack is None:
            self.make()


class InConfigure(InSetup):
    setup = pl.LightningModule.setup

    def configure_model(self):
        InSetup.setup(self, None)


class InBoth(InConfigure):
    def setup(self, stage):
        assert stage != "fit" or self.stack is None
"""


@pytest.mark.parametrize("kind", ["Own", "InSetup", "InConfigure", "InBoth"])
def test_layers_that_a_module_makes_late_get_the_weights(
    compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """They are masked by the given weights, and the trained ones are those that are exported."""
    (tmp_path / "late_layers.py").write_text(LATE_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "late_layers", raising=False)
    torch.manual_seed(7)
    given = {"stack.1.weight": torch.randn(10, 64), "stack.1.bias": torch.randn(10)}
    path = saved({"state_dict": given}, tmp_path / "own.ckpt")
    base = [item for item in QUICK_FOR_THEIRS if not item.startswith("total_iters")]
    theirs = [f"model._target_=late_layers.{kind}", "objective.name=val/score"]
    run(compose_config(*base, *theirs, "schedule=constant", f"init_from={path}"))
    exported = torch.load(tmp_path / "run" / "weights.pt")
    weight, mask = exported["stack.1.weight"], kept(given["stack.1.weight"])
    assert torch.equal(weight != 0, mask)
    distance = (weight - given["stack.1.weight"])[mask].abs().max()
    assert 0 < distance < 0.5, "trained from there"


@pytest.mark.slow
def test_the_command_line_starts_from_a_file_of_any_name(command: Command, work: Path) -> None:
    given = MLP([1, 8, 8], 10, [300, 100])
    saved(given.state_dict(), work / "epoch=9, it's größer.ckpt")
    quick = ["experiment=quick", "trainer.accelerator=cpu", "schedule=none", *STILL]
    path = 'init_from="epoch=9, it\'s größer.ckpt"'
    done = command(*quick, path, "hydra.run.dir=here", "hydra.job.chdir=true")
    assert done.returncode == 0, done.stderr
    exported = torch.load(work / "here" / "weights.pt")
    for name, value in given.state_dict().items():
        torch.testing.assert_close(exported[name], value, rtol=0, atol=1e-6)


WITHOUT_TORCH = """
import runpy, sys
sys.argv = ["train.py", "init_from=folder"]
try:
    runpy.run_path({script!r}, run_name="__main__")
finally:
    assert not {{"torch", "pytorch_lightning", "safetensors"}} & sys.modules.keys()
"""


def test_a_directory_is_refused_before_torch_is_imported_or_a_directory_made(work: Path) -> None:
    (work / "folder").mkdir()
    code = WITHOUT_TORCH.format(script=str(ROOT / "train.py"))
    done = subprocess.run([sys.executable, "-c", code], cwd=work, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: init_from=folder: is a directory; allowed: file with")
    assert len(done.stderr.splitlines()) == 1
    assert [file.name for file in work.iterdir()] == ["folder"]
