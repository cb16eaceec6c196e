"""Lightning's ``callbacks_factory``: what each Trainer of a process is given.

Every Trainer on the machine asks: nothing is imported here, unless a job of Hydra's prunes.
"""

import importlib
import os
import sys
from typing import Any

# Of what an option of ours puts under its key: an app's own node of that name hardly has them all.
OURS = {"schedule", "target_sparsity", "pattern", "masks_from", "gate"}


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
    beside = _beside(root, hydra)
    if "prune" in (hydra.callbacks or ()) or key_of_saved_knobs(hydra) is not None:
        from coreai_opt.plugin.trainer_callbacks import callbacks_of

        return [*callbacks_of(root, hydra), *beside]
    # Hydra has imported it. The list itself would resolve what was typed.
    typed = sys.modules["omegaconf"].OmegaConf.to_container(hydra.overrides.task)
    if any("prune" in text for text in typed):
        from coreai_opt.plugin.trainer_callbacks import refuse_lost_group

        refuse_lost_group(hydra)
    return beside


def _beside(root: str, hydra: Any) -> list[Any]:
    """Return what a job has besides pruning: exact resume, and a record."""
    found: list[Any] = []
    values = sys.modules.get("coreai_opt.runs.values")
    told = None if values is None else values.open_values()
    if "resumable" in (hydra.callbacks or ()) or (told is not None and told.is_resumable):
        from coreai_opt.plugin.jobs.resumable import resumables_of

        found += resumables_of(root, hydra)
    if told is not None:
        from coreai_opt.plugin.trainer_callbacks import HOMES

        told.start_ranks(root)
        module = importlib.import_module(HOMES[root][0])
        found.append(module.RecordTrainer(told))
    elif "COREAI_OPT_RANK_0_PID" in os.environ:
        from coreai_opt.distributed.rank_processes import follow_rank_0

        follow_rank_0()
    return found


def key_of_saved_knobs(hydra: Any) -> str | None:
    """Return the key of our knobs in a config that was saved by a job, and is a config by itself.

    ``.hydra/config.yaml`` holds an app's own part of the config, and nothing of Hydra's.

    Args:
        hydra: Hydra's own node of the job's config.
    """
    read = sys.modules["omegaconf"].OmegaConf
    for key in ("prune", "coreai_prune"):
        node = read.create({"knobs": f"${{{key}}}"}, parent=hydra)
        knobs = read.select(node, "knobs", throw_on_resolution_failure=False)
        if read.is_dict(knobs) and set(knobs) >= OURS:
            return key
    return None
