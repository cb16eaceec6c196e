"""Trains on small images."""

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset


def images() -> TensorDataset:
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(256) % 4
    patterns = torch.randn(4, 1, 8, 8, generator=draw)
    return TensorDataset(patterns[labels] + torch.randn(256, 1, 8, 8, generator=draw), labels)


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(cfg: DictConfig) -> None:
    pl.seed_everything(cfg.seed)
    trainer = pl.Trainer(
        **cfg.trainer,
        callbacks=instantiate(cfg.callbacks),
        logger=CSVLogger(HydraConfig.get().runtime.output_dir),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = DataLoader(images(), 32, shuffle=True)
    trainer.fit(instantiate(cfg.model), batches, DataLoader(images(), 64))


if __name__ == "__main__":
    main()
