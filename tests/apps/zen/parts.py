"""The task, its data, and the function that trains."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Encoder(pl.LightningModule):
    def __init__(self, width: int = 16, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.embed = nn.Linear(4, width)
        self.encoder = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)).mean(1))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.hparams["lr"])


def loader() -> DataLoader:
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(256) % 4
    centers = torch.randn(4, 6, 4, generator=draw)
    tokens = centers[labels] + torch.randn(256, 6, 4, generator=draw)
    return DataLoader(TensorDataset(tokens, labels), 32)


def fit(trainer: pl.Trainer, model: pl.LightningModule, ckpt_path: Path | None) -> None:
    trainer.fit(model, loader(), loader(), ckpt_path=ckpt_path)
