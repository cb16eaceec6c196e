"""Trains a language model to count, and keeps an average of its weights."""

import hydra
import pytorch_lightning as pl
import torch
from gpt import EMA, GPT
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Language(pl.LightningModule):
    def __init__(self, model: dict, optim: dict) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.gpt = GPT(**model)
        self.ema: EMA | None = None

    def on_fit_start(self) -> None:
        self.ema = EMA(self.gpt, self.hparams["optim"]["decay"])

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        (tokens,) = batch
        logits = self.gpt(tokens[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def on_train_batch_end(self, *_: object) -> None:
        self.ema.update(self.gpt)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["ema"] = self.ema.model.state_dict()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optim = self.hparams["optim"]
        return torch.optim.AdamW(self.gpt.groups(optim["weight_decay"]), lr=optim["lr"])


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(cfg: DictConfig) -> None:
    pl.seed_everything(cfg.seed)
    parts = OmegaConf.to_container(cfg, resolve=True)
    start = torch.randint(12, (256, 1), generator=torch.Generator().manual_seed(1))
    tokens = TensorDataset((start + torch.arange(9)) % 12)
    folder = HydraConfig.get().runtime.output_dir
    trainer = pl.Trainer(
        max_epochs=cfg.train.max_epochs,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_last=True)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    task = Language(parts["model"], parts["optim"])
    trainer.fit(task, DataLoader(tokens, 32, shuffle=True), ckpt_path=cfg.train.resume)


if __name__ == "__main__":
    main()
