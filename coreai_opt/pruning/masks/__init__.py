"""Masks: computed from scores, put on tensors, compared; the functions that schemes call."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .of_scores import compute_mask as compute_mask
    from .of_scores import global_masks as global_masks
    from .of_scores import prune_count as prune_count
    from .of_scores import scheme_mask as scheme_mask
    from .of_scores import unstructured_mask as unstructured_mask

__all__ = ["compute_mask", "global_masks", "prune_count", "scheme_mask", "unstructured_mask"]

__getattr__, __dir__ = lazy_exports(__name__, {".of_scores": __all__})
