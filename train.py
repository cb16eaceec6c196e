"""Trains a model while pruning it on a schedule: python train.py --help."""

import sys

try:
    from coreai_opt.train import main  # @hydra.main: completion in fish looks for these words
except ImportError:
    from importlib.metadata import packages_distributions

    owners = sorted(set(packages_distributions().get("coreai_opt", [])))
    if len(owners) > 1:
        sys.exit(f"error: {' and '.join(owners)} both provide coreai_opt; uninstall one of them")
    raise

if __name__ == "__main__":
    main()
