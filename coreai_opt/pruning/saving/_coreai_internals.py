"""Private names of coreai-torch: the operation that its converter stores as sparse weights.

Known to work: coreai-torch 0.4.3.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from coreai_opt._private_names import private_name

with warnings.catch_warnings():
    # It takes 2.13.0+cpu for a later version than 2.13.0.
    warnings.filterwarnings("ignore", "coreai-torch has only been validated")
    import coreai_torch._compression.custom_layers  # noqa: F401  # registers the operation
    from coreai_torch import TorchConverter, get_decomp_table

__all__ = ["TorchConverter", "get_decomp_table", "sparse_to_dense"]

sparse_to_dense: Callable[..., Any] = private_name(
    torch.ops, "coreai.sparse_to_dense", "coreai-torch 0.4.3"
)
"""Values of the nonzero elements and a mask -> the dense weight."""
