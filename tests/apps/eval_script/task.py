"""The network and its data."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Net(pl.LightningModule):
    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.hidden = nn.Linear(16, hidden)
        self.out = nn.Linear(hidden, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(inputs)))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def loader(shuffle: bool = False) -> DataLoader:
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(256) % 4
    centers = 2 * torch.randn(4, 16, generator=draw)
    inputs = centers[labels] + torch.randn(256, 16, generator=draw)
    return DataLoader(TensorDataset(inputs, labels), 32, shuffle)
