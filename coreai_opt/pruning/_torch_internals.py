"""What is private in torch and used here, in one place; known to work in torch 2.6 to 2.13."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.utils.hooks import RemovableHandle

__all__ = [
    "after_backward",
    "copy_all",
    "current_backward",
    "has_step_hooks",
    "multiply_all",
    "run_first",
]

_engine = Variable._execution_engine
_current = torch._C._current_graph_task_id
_multiply = torch._foreach_mul_
_copy = torch._foreach_copy_


def current_backward() -> int:
    """Return a number that tells the backward pass that runs now from all others; -1 = none runs.

    DistributedDataParallel and torch's own hooks for several gradients use the same.
    """
    return int(_current())


def after_backward(action: Callable[[], None]) -> None:
    """Call an action at the end of the backward pass that runs now, behind those queued before."""
    _engine.queue_callback(action)


def has_step_hooks(optimizer: Any) -> bool:
    """Return whether an object calls hooks of its own in ``step``, as an optimizer of torch does.

    What only passes on the attributes of an optimizer inside does not.
    """
    return "_optimizer_step_pre_hooks" in getattr(optimizer, "__dict__", {})


def run_first(handle: RemovableHandle) -> RemovableHandle:
    """Call a hook before all others that are there, and return its handle as given."""
    hooks = handle.hooks_dict_ref()
    if hooks is not None:
        hooks.move_to_end(handle.id, last=False)
    return handle


def multiply_all(values: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each tensor with its factor in place, in as few kernels as torch can do with."""
    _multiply(list(values), list(factors))


def copy_all(values: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Copy each of other tensors into one in place, in as few kernels as torch can do with."""
    if values:  # torch refuses none
        _copy(list(values), list(others))
