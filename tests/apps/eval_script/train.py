"""Trains, and keeps the best checkpoint for evaluate.py."""

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from task import Net, loader


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(cfg: DictConfig) -> None:
    pl.seed_everything(cfg.seed)
    folder = HydraConfig.get().runtime.output_dir
    best = ModelCheckpoint(folder, "best", monitor="val_acc", mode="max", save_last=True)
    trainer = pl.Trainer(
        max_epochs=cfg.max_epochs,
        accelerator="cpu",
        callbacks=best,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(cfg.hidden), loader(shuffle=True), loader(), ckpt_path=cfg.checkpoint)


if __name__ == "__main__":
    main()
