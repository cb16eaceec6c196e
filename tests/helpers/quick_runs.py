"""A run of half a second, and modules of a user's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.training.run import run

QUICK = [
    "data=digits",
    "data.num_train=96",
    "data.num_val=64",
    "data.batch_size=16",
    "model.hidden=[16]",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=2",
    "+trainer.limit_test_batches=4",  # of 103
    "total_iters=8",
]

# Theirs takes no "hidden", and measures its data itself.
QUICK_FOR_THEIRS = [item for item in QUICK if not item.startswith("model.")]

USER_MODULE = '''
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        layers = [nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)]
        self.stack = nn.Sequential(*layers)

    def forward(self, images):
        return self.stack(images)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(10, 64) / 8)
        self.unused = nn.Linear(3, 3)

    def forward(self, images):
        return nn.functional.linear(images.flatten(1), self.kernel)


class Lit(pl.LightningModule):
    """Owns its optimizer, takes nothing of ours."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val/score", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Silent(Lit):
    validation_step = pl.LightningModule.validation_step


class Forwarding(Net):
    def __init__(self, width=6, **kwargs):
        super().__init__(width, **kwargs)


class Broken(Net):
    def __init__(self):
        raise ZeroDivisionError("in the user's own constructor")


class WithState(Net):
    def get_extra_state(self):
        return {"any": "thing"}

    def set_extra_state(self, state):
        pass


class Choosing(Lit):
    """Brings a checkpoint callback that knows nothing of sparsity."""

    def validation_step(self, batch, index):
        self.log("val/score", 1.0 / (1 + self.current_epoch))

    def configure_callbacks(self):
        return [pl.callbacks.ModelCheckpoint(monitor="val/score", mode="max")]


class Failing(Lit):
    def training_step(self, batch, index):
        if self.global_step == 3:
            raise ZeroDivisionError("in the user's own step")
        return super().training_step(batch, index)


class Stopped(Lit):
    error = KeyboardInterrupt

    def training_step(self, batch, index):
        if self.global_step == 3:
            raise self.error
        return super().training_step(batch, index)


class Data(pl.LightningDataModule):
    def __init__(self, batch_size=16):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(64, 1, 8, 8, generator=generator)
        self.set = TensorDataset(images, torch.arange(64) % 10)
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(self.set, self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.set, self.batch_size)


def not_a_model():
    return 3
'''


@pytest.fixture
def quick_run(compose_config: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run in this process and return the record."""

    def make(*overrides: str, name: str = "run") -> dict[str, Any]:
        directory = tmp_path / name
        run(compose_config(*QUICK, *overrides, run_dir=directory))
        record: dict[str, Any] = json.loads((directory / "result.json").read_text())
        return record

    return make


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a module of a user's own on the path and return its name."""
    (tmp_path / "their_code.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "their_code", raising=False)
    return "their_code"
