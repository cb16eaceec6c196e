"""Trains: python -m digits_app."""

import hydra
import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig

from digits_app.data import loaders


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Train, print what was measured last, and return the accuracy."""
    pl.seed_everything(cfg.seed, verbose=False)
    trainer = pl.Trainer(
        max_epochs=cfg.epochs,
        callbacks=[instantiate(callback) for callback in cfg.callbacks.values()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(instantiate(cfg.model), *loaders(cfg.batch_size, cfg.seed))
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{name} {value:.4f}")
    return float(trainer.callback_metrics["accuracy"])


if __name__ == "__main__":
    main()
