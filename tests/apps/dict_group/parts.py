"""The data module, the network and the task."""

from collections.abc import Callable, Iterable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Blobs(pl.LightningDataModule):
    def __init__(self, batch_size: int, samples: int = 256) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        draw = torch.Generator().manual_seed(1)
        centers = 2 * torch.randn(4, 16, generator=draw)
        labels = torch.arange(samples) % 4
        inputs = centers[labels] + torch.randn(samples, 16, generator=draw)
        self.parts = random_split(TensorDataset(inputs, labels), [160, 48, 48], generator=draw)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.parts[0], self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.parts[1], self.hparams["batch_size"])

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.parts[2], self.hparams["batch_size"])


class DenseNet(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(16, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 4),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)


class Classifier(pl.LightningModule):
    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def _step(self, batch: list[Tensor], stage: str) -> Tensor:
        logits = self.forward(batch[0])
        loss = nn.functional.cross_entropy(logits, batch[1])
        accuracy = (logits.argmax(1) == batch[1]).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/acc": accuracy}, on_epoch=True)
        return loss

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: list[Tensor], index: int) -> None:
        self._step(batch, "test")

    def configure_optimizers(self) -> dict:
        optimizer = self.hparams["optimizer"](self.parameters())
        scheduler = self.hparams["scheduler"](optimizer=optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"},
        }
