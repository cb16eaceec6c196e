"""Source fingerprint: the code of a run that neither commit nor versions tell, by file.

A warm-up is of use only to runs of the same code. Without torch.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import coreai_opt
import lightning_callbacks

# Of installed packages the versions are known; a run's own code has none outside of a checkout.
OURS = ("coreai_opt.", "lightning_callbacks.")
INSTALLED = {"site-packages", "dist-packages"}


def sources_of_this_process() -> dict[str, Any]:
    """Return the hash of these packages, and of the file of each module that nobody installed."""
    modules = {str(path): _hash([path]) for path in _own_modules()}
    return {"packages": _hash(_packages()), "modules": modules}


def changed_sources(known: Mapping[str, Any]) -> list[str]:
    """Return what is other code today than in a fingerprint.

    A file that is not there is not among it: the code may lie elsewhere on this machine.
    """
    changed = [] if known.get("packages") == _hash(_packages()) else ["coreai_opt"]
    modules = {Path(name): expected for name, expected in (known.get("modules") or {}).items()}
    readable = [path for path in modules if os.access(path, os.R_OK) and path.is_file()]
    return changed + [str(path) for path in readable if _hash([path]) != modules[path]]


def _packages() -> Iterator[Path]:
    for package in (coreai_opt, lightning_callbacks):
        yield from Path(package.__path__[0]).rglob("*.py")


def _own_modules() -> Iterator[Path]:
    standard = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib"))
    for module in list(sys.modules.values()):
        # Not getattr: it makes lazy modules import what they stand for.
        name = vars(module).get("__file__") if hasattr(module, "__dict__") else None
        ours = str(vars(module).get("__name__")).startswith(OURS) if name else True
        if isinstance(name, str) and not ours and not name.startswith(standard):
            path = Path(name)
            if not INSTALLED & set(path.parts) and os.access(path, os.R_OK) and path.is_file():
                yield path


def _hash(paths: Any) -> str:
    # By content alone: the same code elsewhere is the same code.
    found = sorted({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})
    return hashlib.sha256("".join(found).encode()).hexdigest()[:16]
