"""Criteria: the scores by which weights are pruned."""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.hooks import unserializable_hook

from coreai_opt.pruning.errors import NoGradientError
from coreai_opt.pruning.masks import of_scores as masks
from coreai_opt.pruning.masks.host_selection import Hint
from coreai_opt.pruning.masks.mixing import GOLDEN, mixed, shifted
from coreai_opt.pruning.masks.selection import Magnitude, Scores
from coreai_opt.pruning.spec.clock import ScheduleClock
from coreai_opt.pruning.spec.prune_impl import PruneImplBase, as_bits, from_bits
from coreai_opt.pruning.spec.schemes import PruningScheme

if TYPE_CHECKING:
    from coreai_opt.pruning.spec.spec import PruningSpec

__all__ = ["MagnitudePruneImpl", "PruneImplBase", "RandomPruneImpl", "TaylorPruneImpl"]


@PruneImplBase.register("default")
class MagnitudePruneImpl(PruneImplBase):
    """Magnitude: what is smallest in absolute value is pruned first.

    Source: Han et al. 2015, "Learning both Weights and Connections", arXiv:1506.02626.

    Example:
        >>> from coreai_opt.pruning.spec import Unstructured
        >>> weight = torch.tensor([-3.0, 2.0, -1.0, 0.5])
        >>> MagnitudePruneImpl.compute_mask(weight, 0.5, Unstructured()).tolist()
        [True, True, False, False]
    """

    def __init__(
        self, weight: Tensor, spec: "PruningSpec", clock: ScheduleClock | None = None
    ) -> None:
        super().__init__(weight, spec, clock)
        self.hint = Hint()

    def score(self, weight: Tensor) -> Tensor:
        return weight.abs()

    def ranking(self, weight: Tensor) -> Scores:
        if type(self).score is not MagnitudePruneImpl.score:
            return super().ranking(weight)
        if self.has_stray_zeros():
            return Magnitude(weight, hint=self.hint)  # what must not come back is 0
        is_open = self.allow_regrowth and not self.floor
        return Magnitude(weight, None if is_open else self.open_to_regrowth(weight), self.hint)

    @staticmethod
    def compute_mask(weight: Tensor, sparsity: float, pruning_scheme: PruningScheme) -> Tensor:
        return masks.compute_mask(Magnitude(weight), sparsity, pruning_scheme)


@PruneImplBase.register("random")
class RandomPruneImpl(PruneImplBase):
    """The control: the order in which weights are pruned is drawn once, and knows nothing of them.

    Each tensor draws a seed from torch's random state when the model is prepared; the seed is in
    the state dict. The scores are a hash of seed and index (the finaliser of SplitMix64, Steele et
    al. 2014, doi:10.1145/2660193.2660195), so that they are the same on every device and a higher
    sparsity prunes a superset.

    Attributes:
        seed: int64 buffer of one element.
    """

    seed: Tensor

    def __init__(
        self, weight: Tensor, spec: "PruningSpec", clock: ScheduleClock | None = None
    ) -> None:
        super().__init__(weight, spec, clock)
        self.register_buffer("seed", torch.randint(2**62, (1,)).to(weight.device))

    def score(self, weight: Tensor) -> Tensor:
        _share(self.seed)
        index = torch.arange(weight.numel(), dtype=torch.int64, device=weight.device)
        # 24 bits, which float32 holds exactly on every device.
        bits = shifted(mixed(index * GOLDEN + self.seed), 40)
        return bits.float().view(weight.shape)


@PruneImplBase.register("taylor")
class TaylorPruneImpl(PruneImplBase):
    """First-order Taylor: what changes the loss least, to first order, is pruned first.

    The score of a weight is ``|w * dL/dw|``, added up since the last update. Batches in which the
    gradient is infinite or NaN (a gradient scaler's overflow) do not count. Costs one float32 a
    weight.

    Where masks are kept in place (``InPlacePruner``, ``ScheduledPruning``) it is added up over
    optimizer steps, from the gradient that the step uses before it is masked: that of a pruned
    weight is real, and with its dense value it may come back. In distributed training it is the
    gradient of all ranks.

    Under ``MagnitudePruner`` it is added up over backward passes. A weight that is pruned
    contributes nothing, so it does not come back, and in distributed training the batches of rank 0
    count, so that all ranks prune alike.

    A single batch is noisy: let some pass between updates (``update_frequency``). There is no score
    before the first backward pass, so a schedule must not prune at step 0. A copy of a model, or
    one whose parameters were replaced, has to run once before it is compiled.

    Source: Molchanov et al. 2017, arXiv:1611.06440, eq. 7, there for activations; Molchanov et al.
    2019, arXiv:1906.10771, for weights.

    Raises:
        NoGradientError: a mask is asked for before a gradient has reached the weight.

    Attributes:
        importance: float32 buffer of the weight's shape, the sum so far.
    """

    importance: Tensor

    def __init__(
        self, weight: Tensor, spec: "PruningSpec", clock: ScheduleClock | None = None
    ) -> None:
        super().__init__(weight, spec, clock)
        self.register_buffer("importance", torch.zeros_like(weight, dtype=torch.float32))
        self._passes = 0  # since the last update
        self._used = False  # the sum has been used for a mask; the next pass starts a new one

    def hooks(self, weight: Tensor) -> list[Callable[[Tensor], Any]]:
        """Add up the importance in every backward pass through this dense weight."""
        # Neither is to keep the other alive, nor the weight itself.
        owner, dense_ref = weakref.ref(self), weakref.ref(weight)

        @unserializable_hook  # type: ignore[untyped-decorator]
        def hook(gradient: Tensor) -> None:
            impl, dense = owner(), dense_ref()
            if impl is not None and dense is not None:
                impl._add(dense, gradient)

        return [*super().hooks(weight), hook]

    def score(self, weight: Tensor) -> Tensor:
        if self._passes == 0 and not self._used:
            raise NoGradientError
        _share(self.importance)
        if self.in_place and self.allow_regrowth:
            return self.importance
        # What is pruned has an importance of 0, as dead weights may have: it goes first.
        return torch.where(self.mask, self.importance, -1.0)

    def see_gradient(self, weight: Tensor, gradient: Tensor) -> None:
        self._add(weight, gradient)

    def replace_mask(self, mask: Tensor, sparsity: float) -> None:
        super().replace_mask(mask, sparsity)
        self._used = self._used or self._passes > 0
        self._passes = 0

    def get_extra_state(self) -> Tensor:
        return as_bits([self._passes, self._used])

    def set_extra_state(self, state: Tensor) -> None:
        passes, used = from_bits(state)[-2:]  # in former checkpoints others stand before them
        self._passes, self._used = int(passes), bool(used)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # A model that is converted to half precision keeps its sums: they would stall or overflow.
        kept = self.importance
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        there = self.importance
        is_new = kept.is_meta and not there.is_meta
        self.importance = (
            torch.zeros_like(there, dtype=kept.dtype) if is_new else kept.to(there.device)
        )
        return self

    @torch.no_grad()
    def _add(self, weight: Tensor, gradient: Tensor) -> None:
        if self._passes == 0:
            self.importance.zero_()
        self._passes += 1
        # In float32: what a half precision holds of the product may be 0 or infinite.
        change = (weight.detach().float() * gradient.float()).abs_()
        counts = gradient.isfinite().all() & change.isfinite()
        # On the model, what is pruned has no gradient; in place it has one.
        self.importance += torch.where(counts if self.in_place else counts & self.mask, change, 0.0)


def _share(values: Tensor) -> None:
    """Give all ranks the values of rank 0, so that they prune alike."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(values, src=0)
