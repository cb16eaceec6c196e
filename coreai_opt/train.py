"""The task, as ``python train.py`` and ``coreai-train`` run it: one training, and its objective."""

from typing import TYPE_CHECKING

from coreai_opt.app import hydra_app

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra_app
def main(cfg: "DictConfig") -> float | None:
    """Run once and return the objective."""
    from coreai_opt.training.run import run

    return run(cfg)
