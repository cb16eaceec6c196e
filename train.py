"""Trains a model while pruning it on a schedule: python train.py --help."""

import sys
from typing import TYPE_CHECKING

try:
    from coreai_opt.app import hydra_app
except ImportError:
    from importlib.metadata import packages_distributions

    owners = sorted(set(packages_distributions().get("coreai_opt", [])))
    if len(owners) > 1:
        sys.exit(f"error: {' and '.join(owners)} both provide coreai_opt; uninstall one of them")
    raise

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra_app
def main(cfg: "DictConfig") -> float | None:
    """Run once and return the objective."""
    from coreai_opt.experiment.run import run

    return run(cfg)


if __name__ == "__main__":
    main()
