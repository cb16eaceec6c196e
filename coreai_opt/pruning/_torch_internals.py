"""What is private in torch and used here, in one place; known to work in torch 2.6 to 2.13."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import Variable

__all__ = ["after_backward", "current_backward", "multiply_all"]

_engine = Variable._execution_engine
_current = torch._C._current_graph_task_id
_multiply = torch._foreach_mul_


def current_backward() -> int:
    """Return a number that tells the backward pass that runs now from all others; -1 = none runs.

    DistributedDataParallel and torch's own hooks for several gradients use the same.
    """
    return int(_current())


def after_backward(action: Callable[[], None]) -> None:
    """Call an action at the end of the backward pass that runs now, behind those queued before."""
    _engine.queue_callback(action)


def multiply_all(values: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each tensor with its factor in place, in as few kernels as torch can do with."""
    _multiply(list(values), list(factors))
