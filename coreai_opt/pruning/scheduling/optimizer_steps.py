"""Optimizer step counter: the clock of a schedule in steps."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from coreai_opt.pruning.in_place.optimizers import is_skipped, with_inner


class OptimizerSteps:
    """Counts the steps that optimizers have really made, by a hook on each.

    The hook runs after the optimizer's own ``step``: gradient accumulation calls that once for
    several batches, and a gradient scaler does not call it at all when it skips a step. Several
    optimizers are not added up: the one that has made most steps is the clock. Only optimizers that
    hold one of the given parameters count, or all of them where none does.

    One that hands its work to others that it holds (SAM) counts as the one of them and itself that
    has made most steps: a module may step those by themselves.
    """

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._handles: list[RemovableHandle] = []
        self._attached: list[Optimizer] = []

    @property
    def finished(self) -> int:
        """Optimizer steps finished."""
        return max(self.counts, default=0)

    def attach(self, optimizers: list[Optimizer], parameters: Iterable[nn.Parameter]) -> None:
        """Begin to count; counts that were restored from a checkpoint go on."""
        self._attached = list(optimizers)
        wanted = {id(parameter) for parameter in parameters}
        if len(self.counts) != len(optimizers):
            self.counts = [0] * len(optimizers)
        holders = [index for index, opt in enumerate(optimizers) if _holds(opt, wanted)]
        for index in holders or range(len(optimizers)):
            hook = self._hook(index)
            for one in with_inner(optimizers[index]):
                self._handles.append(one.register_step_post_hook(hook))

    def is_attached_to(self, optimizers: list[Optimizer]) -> bool:
        """Return whether these very optimizers are counted."""
        return list(map(id, self._attached)) == list(map(id, optimizers))

    def detach(self) -> None:
        """Stop counting, and leave the optimizers as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._attached.clear()

    def _hook(self, index: int) -> Any:
        made = Counter[int]()

        def count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            most = max(made.values(), default=0)
            if not is_skipped(optimizer):
                made[id(optimizer)] += 1
                self.counts[index] += made[id(optimizer)] > most

        return count


def _holds(optimizer: Optimizer, wanted: set[int]) -> bool:
    return any(id(param) in wanted for group in optimizer.param_groups for param in group["params"])
