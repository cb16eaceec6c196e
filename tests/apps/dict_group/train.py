"""Trains, and tests the best checkpoint; every object comes from the config."""

import os
from typing import Any

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig

# The hyperparameters in a checkpoint are objects here, which torch.load refuses by default.
os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


def instantiate_callbacks(cfg: DictConfig | None) -> list[pl.Callback]:
    if not cfg:
        return []
    if not isinstance(cfg, DictConfig):
        raise TypeError("Callbacks config must be a DictConfig!")
    nodes = [node for node in cfg.values() if isinstance(node, DictConfig) and "_target_" in node]
    return [hydra.utils.instantiate(node) for node in nodes]


def train(cfg: DictConfig) -> dict[str, Any]:
    pl.seed_everything(cfg.seed, workers=True)
    data = hydra.utils.instantiate(cfg.data)
    model = hydra.utils.instantiate(cfg.model)
    callbacks = instantiate_callbacks(cfg.get("callbacks"))
    trainer = hydra.utils.instantiate(cfg.trainer, callbacks=callbacks, logger=False)
    if cfg.train:
        trainer.fit(model=model, datamodule=data, ckpt_path=cfg.ckpt_path)
    metrics = dict(trainer.callback_metrics)
    if cfg.test:
        best = trainer.checkpoint_callback.best_model_path
        if best == "":
            print("Best ckpt not found! Using current weights for testing...")
        trainer.test(model=model, datamodule=data, ckpt_path=best or None)
        metrics |= trainer.callback_metrics
    return metrics


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    metrics = train(cfg)
    return float(metrics["test/acc"]) if "test/acc" in metrics else None


if __name__ == "__main__":
    main()
