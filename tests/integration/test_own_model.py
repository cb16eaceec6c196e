"""The first section of docs/own-model.md, followed with a model and data of one's own."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from coreai_opt.report.__main__ import main as report
from tests.conftest import ROOT, Command

PAGE = (ROOT / "docs" / "own-model.md").read_text()
SECTION = PAGE.partition("## In five minutes")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```bash\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]

MODULE = """
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(8, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())


class Data(pl.LightningDataModule):
    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(384, 8, generator=generator)
        self.all = TensorDataset(x, x[:, :3].argmax(1))

    def part(self, first, last):
        return DataLoader(torch.utils.data.Subset(self.all, range(first, last)), batch_size=32)

    def train_dataloader(self):
        return self.part(0, 256)

    def val_dataloader(self):
        return self.part(256, 320)

    def test_dataloader(self):
        return self.part(320, 384)
"""
# To target in time, of 40 steps each.
SHORT = ["trainer.max_epochs=5", "total_iters=20", "begin_step=0", "trainer.accelerator=cpu"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_model_of_ones_own_in_five_minutes(
    command: Command,
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(work)
    dense, pruned, swept, reported = (shlex.split(line) for line in LINES)
    (work / "my").mkdir()
    (work / "my" / "module.py").write_text(MODULE)
    done = command(*dense[2:], *(word for word in SHORT if not word.startswith(("total", "begin"))))
    assert done.returncode == 0, done.stderr
    assert set(torch.load(work / "outputs" / "dense" / "weights.pt")) == {
        "body.weight", "body.bias", "head.weight", "head.bias"
    }  # fmt: skip
    done = command(*pruned[2:], *SHORT)
    assert done.returncode == 0, done.stderr
    assert "sparsity 50.00 %" in done.stdout
    done = command(*swept[2:], *SHORT, timeout=200)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in work.glob("multirun/*/*/result.json")]
    assert {(one["status"], one["config"]["seed"]) for one in records} == {
        ("completed", seed) for seed in (1, 2, 3)
    }
    assert {one["sparsity"]["achieved"] for one in records} == {
        sum(int(target * elements) for elements in (8 * 64, 64 * 3)) / (8 * 64 + 64 * 3)
        for target in (0.5, 0.75, 0.9, 0.95)
    }
    assert len(records) == 12
    assert reported == ["scripts/report", "multirun"]
    report([*reported[1:], "--no-figures"])
    assert "12 runs: " in capsys.readouterr().out
