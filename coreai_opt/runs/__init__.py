"""Run directory: paths, record, sign of life, lock, and what a later run goes on from."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from coreai_opt.runs.values import record

__all__ = ["record"]

__getattr__, __dir__ = lazy_exports(__name__, {".values": ["record"]})
