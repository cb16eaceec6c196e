"""On what a dense warm-up is computed: code, versions, starting weights, device, threads."""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import coreai_opt
import lightning_callbacks
from coreai_opt.config.locations import typed_path
from coreai_opt.runs.record import code_of_this_run

__all__ = ["circumstances"]

# Of installed packages the versions are known; a run's own code has none outside of a checkout.
OURS = ("coreai_opt.", "lightning_callbacks.")
INSTALLED = {"site-packages", "dist-packages"}


def circumstances(config: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """Return all but the config that the weights of a run depend on.

    Args:
        config: the resolved config.
        device: accelerator and name, as in the record.
    """
    start = config.get("init_from")
    return {
        **code_of_this_run(),
        "sources": _digest(_sources()),
        "init_from": start and _digest([typed_path(str(start))]),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _sources() -> Iterator[Path]:
    """Yield the files of these packages, and of modules that nobody has installed."""
    for package in (coreai_opt, lightning_callbacks):
        yield from Path(package.__path__[0]).rglob("*.py")
    standard = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib"))
    for module in list(sys.modules.values()):
        # Not getattr: it makes lazy modules import what they stand for.
        name = vars(module).get("__file__") if hasattr(module, "__dict__") else None
        ours = str(vars(module).get("__name__")).startswith(OURS) if name else True
        if isinstance(name, str) and not ours and not name.startswith(standard):
            path = Path(name)
            if not INSTALLED & set(path.parts) and os.access(path, os.R_OK) and path.is_file():
                yield path


def _digest(paths: Any) -> str:
    # By content alone: the same code elsewhere is the same code.
    found = sorted({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})
    return hashlib.sha256("".join(found).encode()).hexdigest()[:16]
