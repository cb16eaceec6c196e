"""The console commands of an installation: what ``train.py`` and the scripts are in a checkout."""

import sys
from pathlib import Path

__all__ = ["preview", "report", "train"]

TRAIN = "coreai-train"


def train() -> None:
    """``coreai-train``: train while pruning on a schedule, sweep with ``-m``."""
    from coreai_opt.train import main

    main()


def preview() -> None:
    """``coreai-preview``: show what ``coreai-train`` would run with the same arguments."""
    # Under that name: the commands that a preview shows are those that run.
    sys.argv[0] = str(Path(sys.argv[0]).with_name(TRAIN))
    if not {"--help", "-h"} & set(sys.argv[1:]):
        # Beside the other overrides: Hydra's parser wants them in one piece.
        words = enumerate(sys.argv[1:], start=1)
        given = (at for at, word in words if "=" in word and not word.startswith("-"))
        sys.argv.insert(next(given, len(sys.argv)), "preview=true")
    train()


def report() -> None:
    """``coreai-report``: report on sweeps from their records."""
    from coreai_opt.report.__main__ import main

    main()
