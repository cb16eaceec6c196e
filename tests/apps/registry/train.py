"""Trains a network whose parts are named in the config."""

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from registry import CALLBACKS, NETS
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Task(pl.LightningModule):
    def __init__(self, net: str, hidden: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = NETS[net](hidden)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val_loss", self.training_step(batch, index))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def loader(first: int, last: int) -> DataLoader:
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(256) % 4
    centers = 2 * torch.randn(4, 16, generator=draw)
    inputs = centers[labels] + torch.randn(256, 16, generator=draw)
    return DataLoader(TensorDataset(inputs[first:last], labels[first:last]), 32)


@hydra.main(version_base=None, config_path=".", config_name="config")
def main(cfg: DictConfig) -> None:
    pl.seed_everything(cfg.seed)
    callbacks = [CALLBACKS[name](**arguments) for name, arguments in cfg.callbacks.items()]
    trainer = pl.Trainer(
        default_root_dir=HydraConfig.get().runtime.output_dir,
        max_epochs=cfg.epochs,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Task(cfg.net, cfg.hidden), loader(0, 192), loader(192, 256), ckpt_path=cfg.resume_from
    )


if __name__ == "__main__":
    main()
