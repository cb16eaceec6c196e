"""Trains; the config is typed by dataclasses in the ConfigStore."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.config_store import ConfigStore
from parts import Encoder, fit


def callbacks() -> list[Any]:
    root = "pytorch_lightning.callbacks"
    best = {"monitor": "val_loss", "filename": "best", "save_last": True}
    return [
        {"_target_": f"{root}.ModelCheckpoint", **best},
        {"_target_": f"{root}.EarlyStopping", "monitor": "val_loss", "patience": 2},
    ]


@dataclass
class TrainerConfig:
    _target_: str = "pytorch_lightning.Trainer"
    default_root_dir: str = "${hydra:runtime.output_dir}"
    max_epochs: int = 4
    accelerator: str = "cpu"
    logger: bool = False
    enable_progress_bar: bool = False
    enable_model_summary: bool = False
    callbacks: list[Any] = field(default_factory=callbacks)


@dataclass
class ModelConfig:
    width: int = 16
    lr: float = 0.01


@dataclass
class Config:
    seed: int = 1
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    ckpt_path: str | None = None


ConfigStore.instance().store("train", Config)


@hydra.main(version_base="1.3", config_path=None, config_name="train")
def main(cfg: Config) -> None:
    pl.seed_everything(cfg.seed)
    model = Encoder(cfg.model.width, cfg.model.lr)
    fit(hydra.utils.instantiate(cfg.trainer), model, Path(cfg.ckpt_path) if cfg.ckpt_path else None)


if __name__ == "__main__":
    main()
