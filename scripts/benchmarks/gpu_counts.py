"""Launches of kernels and waits for the device that a training step would pay on a GPU.

There need be no GPU: torch's operations are noted as they are called, tensors on the host take the
way of those on a device, and calls for many tensors are counted as CUDA splits them.
"""

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Tensors that one launch takes, by the number of lists (torch/aten: MultiTensorApply.cuh).
TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
# These read a value, or a number of values, back to the host.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2"}


class Counts(NamedTuple):
    """What some calls would pay on a GPU."""

    launches: int
    waits: int


class _Noting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.launches = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.waits += name in WAITS or (name in ("index", "index_put_") and _by_bool(args[1]))
        if name.startswith("_foreach"):
            self.launches += _split(args)
        elif not func.is_view and name not in ("detach", "empty", "empty_like", "empty_strided"):
            self.launches += 1
        return func(*args, **(kwargs or {}))


def counted(action: Callable[[], object]) -> Counts:
    """Return what an action would pay if its tensors were on a GPU."""
    # Tensors of the host go the way of those on a device.
    with patch("coreai_opt.pruning.masks.host.on_host", lambda _: False), _Noting() as noting:
        action()
    return Counts(noting.launches, noting.waits)


def _by_bool(indices: Any) -> bool:
    return any(isinstance(one, Tensor) and one.dtype is torch.bool for one in indices)


def _split(args: Any) -> int:
    lists = [each for each in args if isinstance(each, (list, tuple))]
    tensors = [[one for one in each if isinstance(one, Tensor)] for each in lists]
    tensors = [each for each in tensors if each]
    count = len(tensors[0])
    alike = {(one.dtype, one.device) for one in tree_leaves(tensors)}
    # Where types differ each tensor is launched by itself.
    return ceil(count / TENSORS[len(tensors)]) if len(alike) == 1 else count
