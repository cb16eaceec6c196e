"""Tests a checkpoint, without callbacks."""

import os

import hydra
from omegaconf import DictConfig

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@hydra.main(version_base="1.3", config_path="configs", config_name="eval")
def main(cfg: DictConfig) -> None:
    data = hydra.utils.instantiate(cfg.data)
    model = hydra.utils.instantiate(cfg.model)
    trainer = hydra.utils.instantiate(cfg.trainer, logger=False)
    trainer.test(model=model, datamodule=data, ckpt_path=cfg.ckpt_path)


if __name__ == "__main__":
    main()
