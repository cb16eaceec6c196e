"""By what score, and the parametrization that holds the mask."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from coreai_opt.pruning import masks
from coreai_opt.pruning._registry import Registry
from coreai_opt.pruning.spec.schemes import PruningScheme

if TYPE_CHECKING:
    from coreai_opt.pruning.spec.spec import PruningSpec

__all__ = ["MagnitudePruneImpl", "PruneImplBase", "ScheduleClock"]


@dataclass
class ScheduleClock:
    """The steps finished; one object shared by all masks of a model, so that they cannot differ."""

    step_count: int = 0


class PruneImplBase(nn.Module, Registry):
    """A parametrization that multiplies a weight with a mask, and the criterion behind the mask.

    A criterion of your own overrides ``score`` and registers itself:

    Example:
        >>> from coreai_opt.pruning.spec import PruneImplBase, PruningSpec
        >>> @PruneImplBase.register("smallest_square")
        ... class SquarePruneImpl(PruneImplBase):
        ...     def score(self, weight):
        ...         return weight.square()
        >>> PruningSpec(pruning_algo="smallest_square").pruning_algo.__name__
        'SquarePruneImpl'

    Args:
        weight: the dense weight; shape and device of the mask are taken from it.
        spec: what is asked for this tensor.
        clock: the step counter of the model's schedules.

    Attributes:
        mask: bool buffer of the weight's shape, True = keep.
        spec: the ``PruningSpec``.
    """

    mask: Tensor

    def __init__(
        self, weight: Tensor, spec: "PruningSpec", clock: ScheduleClock | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.clock = clock if clock is not None else ScheduleClock()
        self._sparsity = 0.0
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    @property
    def sparsity(self) -> float:
        """The sparsity that the mask was last computed for, in [0, 1]; 0 before the first."""
        return self._sparsity

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its pruned elements at 0; their gradients are 0 too."""
        # where, not a product: an infinite weight that is pruned has to become 0, not NaN.
        return torch.where(self.mask, weight, 0.0)

    def score(self, weight: Tensor) -> Tensor:
        """Return how much each element is worth: the weight's shape, higher = keep."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither score nor compute_mask")

    @staticmethod
    def compute_mask(weight: Tensor, sparsity: float, pruning_scheme: PruningScheme) -> Tensor:
        """Return the mask of a weight, 1/True = keep; for criteria that need only the weight."""
        raise NotImplementedError("this criterion has no compute_mask of its own; see score")

    @torch.no_grad()
    def update(self, weight: Tensor, sparsity: float) -> None:
        """Recompute the mask in place from the dense weight, at a new sparsity in [0, 1]."""
        self.mask.copy_(self._new_mask(weight.detach(), sparsity))
        self._sparsity = sparsity

    def get_extra_state(self) -> Tensor:
        # A tensor, because people map state dicts with v.cpu(); float64 holds both numbers exactly.
        return torch.tensor([self._sparsity, self.clock.step_count], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        sparsity, step_count = state.tolist()
        self._sparsity, self.clock.step_count = sparsity, int(step_count)

    def extra_repr(self) -> str:
        return f"sparsity={self._sparsity:g}, target_sparsity={self.spec.target_sparsity:g}"

    def _new_mask(self, weight: Tensor, sparsity: float) -> Tensor:
        if self._scores():
            return masks.compute_mask(self.score(weight), sparsity, self.spec.pruning_scheme)
        return self.compute_mask(weight, sparsity, self.spec.pruning_scheme)

    @classmethod
    def _scores(cls) -> bool:
        # A subclass may override either; the nearest one counts, score where both stand.
        nearest = next(
            known for known in cls.__mro__ if {"score", "compute_mask"} & vars(known).keys()
        )
        return "score" in vars(nearest)


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

    def score(self, weight: Tensor) -> Tensor:
        return weight.abs()

    @staticmethod
    def compute_mask(weight: Tensor, sparsity: float, pruning_scheme: PruningScheme) -> Tensor:
        return masks.compute_mask(weight.abs(), sparsity, pruning_scheme)
