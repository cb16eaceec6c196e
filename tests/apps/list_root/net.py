"""A convolutional network and its training."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional


class Images(pl.LightningModule):
    def __init__(self, criterion: str, channels: int, lr: float, interval: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Linear(4 * channels, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).flatten(1))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        loss = getattr(functional, self.hparams["criterion"])(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), self.hparams["lr"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
        interval = self.hparams["interval"]
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": interval},
        }
