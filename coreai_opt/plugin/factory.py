"""Lightning's ``callbacks_factory``: what each Trainer of a process is given.

Every Trainer on the machine asks: nothing is imported here, unless a job of Hydra's prunes.
"""

import sys
from typing import Any

__all__ = ["lightning_pytorch", "pytorch_lightning"]


def pytorch_lightning() -> list[Any]:
    """Return the callbacks for a ``pytorch_lightning.Trainer``."""
    return _callbacks("pytorch_lightning")


def lightning_pytorch() -> list[Any]:
    """Return the callbacks for a ``lightning.pytorch.Trainer``."""
    return _callbacks("lightning.pytorch")


def _callbacks(root: str) -> list[Any]:
    known = sys.modules.get("hydra.core.hydra_config")
    if known is None or not known.HydraConfig.initialized():
        return []
    hydra = known.HydraConfig.get()
    if "prune" in (hydra.callbacks or ()):
        from coreai_opt.plugin.trainer_callbacks import callbacks_of

        return callbacks_of(root, hydra)
    # Hydra has imported it. The list itself would resolve what was typed.
    typed = sys.modules["omegaconf"].OmegaConf.to_container(hydra.overrides.task)
    if any("prune" in text for text in typed):
        from coreai_opt.plugin.trainer_callbacks import refuse_lost_group

        refuse_lost_group(hydra)
    return []
