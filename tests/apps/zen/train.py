"""Trains; the config is typed by hydra-zen, and the callbacks are a list inside the trainer."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra_zen import builds, store, zen
from parts import Encoder, fit
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

TrainerConfig = builds(
    pl.Trainer,
    default_root_dir="${hydra:runtime.output_dir}",
    max_epochs=4,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[
        builds(ModelCheckpoint, monitor="val_loss", filename="best", save_last=True),
        builds(EarlyStopping, monitor="val_loss", patience=2),
    ],
)


def train(seed: int, trainer: Any, model: Any, ckpt_path: str | None = None) -> None:
    fit(trainer, model, Path(ckpt_path) if ckpt_path else None)


if __name__ == "__main__":
    store(
        train,
        name="train",
        seed=1,
        trainer=TrainerConfig,
        model=builds(Encoder, populate_full_signature=True),
        populate_full_signature=True,
    )
    store.add_to_hydra_store()
    main = zen(train, pre_call=lambda cfg: pl.seed_everything(cfg.seed))
    main.hydra_main(config_name="train", version_base="1.3", config_path=None)
