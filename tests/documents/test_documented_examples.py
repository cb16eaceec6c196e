"""The pages for those who do not use Hydra: what they show is put together and run."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT
from tests.helpers.lightning import zeros

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

Cli = Callable[[str], None]


def blocks_of(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return [code for kind, code in BLOCK.findall(text) if kind == language]


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, *arguments]
    return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True)


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return weights


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Type a command of the page, in a directory with the page's files."""
    pytest.importorskip("jsonargparse", reason="LightningCLI needs pytorch-lightning[extra]")
    (tmp_path / "cli.py").write_text(blocks_of("lightning-cli.md", "python")[0])
    whole, layers = blocks_of("lightning-cli.md", "yaml")
    (tmp_path / "pruning.yaml").write_text(whole)
    (tmp_path / "layers.yaml").write_text(layers)
    monkeypatch.chdir(tmp_path)
    # Lightning calls what jsonargparse has deprecated.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

    def typed(line: str) -> None:
        _, script, *arguments = shlex.split(line)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(script, run_name="__main__")

    return typed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_lightning_cli_page_runs_from_top_to_bottom(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit, go_on, validate, explain = blocks_of("lightning-cli.md", "bash")[1].splitlines()
    cli(fit)
    last = tmp_path / "checkpoints" / "last.ckpt"
    first = weights_of(last)
    layers = ("network.layers.1", "network.layers.3")
    assert list(first) == [f"{layer}.{name}" for layer in layers for name in ("weight", "bias")]
    assert zeros(first["network.layers.1.weight"]) == 3686 / 4096  # floor(0.9 * 4096)
    cli(go_on)
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == 6 * 30
    assert saved["callbacks"]["ScheduledPruning"]["clock"] == 6 * 30
    later = saved["state_dict"]
    assert zeros(later["network.layers.1.weight"]) == 3686 / 4096
    assert not torch.equal(later["network.layers.1.weight"], first["network.layers.1.weight"])
    capsys.readouterr()
    cli(validate)
    assert "val/accuracy" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli(explain)
    assert "--trainer.callbacks.target_sparsity" in capsys.readouterr().out


def test_a_line_on_the_command_is_enough(cli: Cli, tmp_path: Path) -> None:
    (line,) = blocks_of("lightning-cli.md", "bash")[0].splitlines()
    cli(f"{line} --seed_everything 1 --trainer.default_root_dir here --trainer.logger false")
    (checkpoint,) = (tmp_path / "here").rglob("*.ckpt")
    weights = weights_of(checkpoint)
    assert zeros(weights["network.layers.1.weight"]) == 3686 / 4096  # floor(0.9 * 4096)
    assert (
        torch.load(checkpoint, weights_only=True)["callbacks"]["ScheduledPruning"]["clock"] == 100
    )


def test_the_config_of_layers_is_understood(cli: Cli, tmp_path: Path) -> None:
    config = yaml.safe_load((tmp_path / "pruning.yaml").read_text())
    layers = yaml.safe_load((tmp_path / "layers.yaml").read_text())
    config["trainer"]["callbacks"][0] = layers["trainer"]["callbacks"][0]
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(config))
    cli("python cli.py fit --config both.yaml")
    weights = weights_of(tmp_path / "checkpoints" / "last.ckpt")
    assert zeros(weights["network.layers.1.weight"]) == 3686 / 4096
    assert zeros(weights["network.layers.3.weight"]) == 0


def test_the_plain_loop_is_a_whole_one_without_its_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = blocks_of("plain-pytorch.md", "python")[0]
    lines = code.splitlines()
    added = [line for line in lines if line.endswith("# pruning")]
    assert len(added) == 7
    monkeypatch.chdir(tmp_path)
    for kept, expected in ((lines, 3276 / 4096), ([x for x in lines if x not in added], 0.0)):
        names: dict[str, Any] = {}
        exec(compile("\n".join(kept), "documented", "exec"), names)
        assert float(names["accuracy"]) > 0.9
        weights = torch.load("weights.pt", weights_only=True)
        assert list(weights) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert zeros(weights["0.weight"]) == expected


FABRIC_RANKS = """
import sys
import torch
from lightning_fabric import Fabric
from coreai_opt.pruning import InPlacePruner, MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule

in_place = sys.argv[1] == "InPlacePruner"
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
ramp = PolynomialDecaySchedule(total_iters=6)
kind = InPlacePruner if in_place else MagnitudePruner
pruner = kind(model, MagnitudePrunerConfig.uniform(0.75, ramp))
pruner.prepare()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
if not in_place:
    pruner.mask_optimizer_state(optimizer)
model, optimizer = fabric.setup(model, optimizer)
if in_place:
    pruner.attach(optimizer)
torch.manual_seed(fabric.global_rank)  # other batches on each rank
for _ in range(8):
    optimizer.zero_grad()
    fabric.backward(model(torch.randn(4, 8)).square().mean())
    optimizer.step()
    pruner.step()
pruner.finalize()
torch.save(model.module.state_dict(), f"rank-{fabric.global_rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["InPlacePruner", "MagnitudePruner"])
def test_fabric_in_two_processes_ends_with_the_same_masks(tmp_path: Path, pruner: str) -> None:
    (tmp_path / "ranks.py").write_text(FABRIC_RANKS)
    done = run("ranks.py", pruner, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert zeros(first["0.weight"]) == zeros(first["1.weight"]) == 0.75
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.apart
def test_the_config_is_one_of_the_other_import_root_by_its_class_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jsonargparse", reason="LightningCLI needs pytorch-lightning[extra]")
    pytest.importorskip("lightning", reason="needs the extra lightning")
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.demos.boring_classes import BoringModel

    from lightning_callbacks import lightning_pytorch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    monkeypatch.setattr("sys.argv", ["cli"])  # it warns of arguments of the command, pytest's too
    text = blocks_of("lightning-cli.md", "yaml")[0]
    ours = "class_path: lightning_callbacks"
    config = yaml.safe_load(text.replace(ours, f"{ours}.lightning_pytorch"))
    config["trainer"] |= {"enable_progress_bar": False, "enable_checkpointing": False}
    config["trainer"]["callbacks"].pop()  # the model logs no accuracy
    config["trainer"] |= {"max_epochs": 2, "enable_model_summary": False}
    del config["model"]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    cli = LightningCLI(BoringModel, run=False, args=["--config", "other.yaml"])
    pruning = cli.trainer.callbacks[0]
    assert type(pruning) is lightning_pytorch.ScheduledPruning
    cli.trainer.fit(cli.model)
    assert pruning.clock == 2 * 64
    assert zeros(cli.model.layer.weight) == 57 / 64  # floor(0.9 * 64)
