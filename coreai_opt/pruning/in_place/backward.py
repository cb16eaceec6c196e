"""The end of a backward pass: one call when all gradients are there, reduced over ranks."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from coreai_opt.pruning._torch_internals import after_backward, current_backward

__all__ = ["BackwardEnd"]


class BackwardEnd:
    """Calls an action once at the end of each backward pass that reaches one of some weights.

    Args:
        action: called when all gradients of the pass are there.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._watched: list[Tensor] = []
        self._handles: list[Any] = []
        self._noted = -1

    def watch(self, weights: Iterable[Tensor]) -> None:
        """Watch these weights instead of those of before."""
        there = list(weights)
        same = len(there) == len(self._watched)
        if same and all(one is other for one, other in zip(there, self._watched, strict=True)):
            return
        self.release()
        self._watched = there
        trained: list[Any] = [weight for weight in there if weight.requires_grad]
        self._handles = [each.register_post_accumulate_grad_hook(self._note) for each in trained]

    def release(self) -> None:
        """Watch no weight any more."""
        while self._handles:
            self._handles.pop().remove()
        self._watched = []

    def _note(self, weight: Tensor) -> None:
        # By its number: one that was broken off has not called what was queued.
        now = current_backward()
        if now != self._noted:
            self._noted = now
            # DistributedDataParallel queues its own last step, in which gradients get their values,
            # during the pass: behind this one, and before what is queued from it.
            after_backward(self._queue)

    def _queue(self) -> None:
        after_backward(self._action)
