"""End of a backward pass: one call when all gradients are there, reduced over ranks."""

from collections.abc import Callable, Collection, Sequence
from operator import is_
from typing import Any
from weakref import ref

from torch import Tensor

from coreai_opt.pruning._torch_internals import after_backward, current_backward


class BackwardEnd:
    """Calls an action once at the end of each backward pass that reaches one of some weights.

    Args:
        action: called when all gradients of the pass are there.
        before: called with the place of a weight before a gradient is added to what it has, for
            the weights that have early hooks.
    """

    def __init__(self, action: Callable[[], None], before: Callable[[int], None]) -> None:
        self._action = action
        self._before = before
        self._hooked: Sequence[Tensor] = ()
        self._handles: list[Any] = []
        self._noted = -1

    def hook_gradients(self, weights: Sequence[Tensor], early: Collection[int] = ()) -> None:
        """Put hooks on these weights instead of the former; on some early hooks, by place."""
        if len(weights) == len(self._hooked) and all(map(is_, weights, self._hooked)):
            return
        self.release()
        self._hooked = weights
        for place, weight in enumerate(weights):
            self._hook_onto(weight, place if place in early else None)

    def release(self) -> None:
        """Remove all hooks."""
        while self._handles:
            self._handles.pop().remove()
        self._hooked = ()

    def _hook_onto(self, weight: Any, early: int | None) -> None:
        is_trained = weight.requires_grad
        try:
            weight.requires_grad_()  # a frozen one may be trained later
            note = _hook(ref(self), None)
            self._handles.append(weight.register_post_accumulate_grad_hook(note))
            if early is not None:
                self._handles.append(weight.register_hook(_hook(ref(self), early)))
        finally:
            weight.requires_grad_(is_trained)

    def note(self) -> None:
        """Take note that a backward pass has reached one of the weights."""
        # By its number: one that was broken off has not called what was queued.
        now = current_backward()
        if now != self._noted:
            self._noted = now
            # DistributedDataParallel queues its own last step, in which gradients get their values,
            # during the pass: behind this one, and before what is queued from it.
            after_backward(self._queue)

    def _queue(self) -> None:
        after_backward(self._action)


def _hook(owner: "ref[BackwardEnd]", early: int | None) -> Callable[[Tensor], None]:
    # Weakly: a cycle through a hook of a weight is never collected.
    def hook(_: Tensor) -> None:
        there = owner()
        if there is not None:
            there.note()  # torch.autograd.grad gets to an early one as well, and adds nothing
            if early is not None:
                there._before(early)

    return hook
