"""Pruning experiments for PyTorch, driven by Hydra and Lightning."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .common import CoreMLExportError, DependencyVersionWarning, ExportBackend

__all__ = ["CoreMLExportError", "DependencyVersionWarning", "ExportBackend", "__version__"]

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_exports(
    __name__,
    {".common": ["CoreMLExportError", "DependencyVersionWarning", "ExportBackend"]},
)
