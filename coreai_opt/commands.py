"""The console commands of an installation: what ``train.py`` and the scripts are in a checkout."""

from coreai_opt.cli.argv import become_preview


def train() -> None:
    """``coreai-train``: train while pruning on a schedule, sweep with ``-m``."""
    from coreai_opt.train import main

    main()


def preview() -> None:
    """``coreai-preview``: show what ``coreai-train`` would run with the same arguments."""
    become_preview("coreai-train")
    train()


def deploy() -> None:
    """``coreai-deploy``: make artefacts of a trained model, and measure what they gain."""
    from coreai_opt.cli.deploy_command import main

    main()


def report() -> None:
    """``coreai-report``: report on sweeps from their records."""
    from coreai_opt.report.__main__ import main

    main(name="coreai-report")
