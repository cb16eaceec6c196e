"""Pruning schemes: patterns of zeros, and the sparsities that they can reach.

Plain numbers only: a config is checked, and a table of what is reachable made, without torch.
"""

from collections.abc import Mapping
from math import floor, prod
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from coreai_opt.pruning._registry import Registry

Shape = tuple[int, ...]


def prune_count(total: int, sparsity: float) -> int:
    """Return how many of ``total`` elements a sparsity prunes: ``floor(total * sparsity)``.

    Raises:
        ValueError: the sparsity is outside [0, 1].

    Example:
        >>> [prune_count(10, sparsity) for sparsity in (0, 0.19, 0.2, 1)]
        [0, 1, 2, 10]
    """
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparsity is {sparsity}; allowed: 0 to 1")
    return floor(total * sparsity)


class PruningScheme(BaseModel, Registry):
    """Base of all schemes: frozen, known by key, dumped with its ``type``.

    A scheme of your own says in ``pruned_elements`` what it prunes, and registers its mask function
    with ``coreai_opt.pruning.masks.scheme_mask.register``. In a config its ``type`` is its dotted
    path, or the key that it registers itself under here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    RESERVED: ClassVar[dict[str, str]] = {
        key: f"the scheme type {key!r} is reserved: {why}; allowed: {instead}"
        for key, why, instead in (
            (
                "n_m_structured",
                "an announced change of the API counts the n zeros of every m weights under it",
                "'n_m', where n of every m weights are kept",
            ),
            (
                "block_structured",
                "an announced change of the API means blocks of whole channels by it",
                "'block', which takes a block_shape",
            ),
        )
    }

    def pruned_elements(self, shape: Shape, sparsity: float) -> int:
        """Return how many elements of a tensor of this shape are pruned at a sparsity in [0, 1].

        The base counts single elements.
        """
        return prune_count(prod(shape), sparsity)

    def problem(self, shape: Shape) -> str | None:
        """Return why a tensor of this shape cannot be pruned in this pattern, None if it can."""
        return None

    def target_for(self, target_sparsity: float) -> float:
        """Return the sparsity that a schedule is to arrive at when this target is asked for."""
        return target_sparsity

    def check(self, shape: Shape) -> None:
        """Raise a ValueError when a tensor of this shape cannot be pruned in this pattern."""
        if problem := self.problem(shape):
            raise ValueError(problem)

    @model_validator(mode="before")
    @classmethod
    def _is_its_own_type(cls, values: Any) -> Any:
        """Take a dump of this very class, which has its ``type``."""
        if isinstance(values, Mapping) and values.get("type") == cls._type():
            return {name: value for name, value in values.items() if name != "type"}
        return values

    @model_serializer(mode="wrap")
    def _with_type(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": self._type(), **handler(self)}

    @classmethod
    def _type(cls) -> str:
        return cls.registry_key() or f"{cls.__module__}.{cls.__qualname__}"


@PruningScheme.register("unstructured")
class Unstructured(PruningScheme):
    """Any element may be pruned, whatever its neighbours are.

    Exactly ``floor(numel * sparsity)`` elements are pruned.

    Attributes:
        axis: None, as no axis is told from another; a dict that says so builds one as well.

    Example:
        >>> Unstructured().model_dump()
        {'type': 'unstructured'}
        >>> PruningScheme.maybe_build_from_dict({"type": "unstructured", "axis": None}).axis is None
        True
    """

    axis: ClassVar[None] = None

    @model_validator(mode="before")
    @classmethod
    def _has_no_axis(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("axis", 0) is None:
            return {name: value for name, value in values.items() if name != "axis"}
        return values


@PruningScheme.register("channel_structured")
class ChannelStructured(PruningScheme):
    """Whole slices along one axis; what a slice is worth is the sum of its scores.

    By magnitude that sum is the L1 norm of the slice. Exactly ``floor(channels * sparsity)`` slices
    are pruned. Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710.

    Args:
        axis: the axis that is counted in channels; negative from the end. 0 is the output of linear
            and convolution layers.

    Example:
        >>> [ChannelStructured().pruned_elements((8, 10), sparsity) for sparsity in (0.1, 0.25)]
        [0, 20]
    """

    axis: int = Field(0, description="axis that is counted in channels")

    def problem(self, shape: Shape) -> str | None:
        return _axis_problem(self.axis, shape)

    def pruned_elements(self, shape: Shape, sparsity: float) -> int:
        channels = shape[self.axis]
        width = prod(shape) // channels if channels else 0
        return prune_count(channels, sparsity) * width


@PruningScheme.register("n_m")
class NMStructured(PruningScheme):
    """Of every ``m`` consecutive weights along an axis ``n`` are kept, and ``m - n`` are zero.

    2:4 is 50 % zeros, 1:4 is 75 % and 3:4 is 25 %. The literature counts so (arXiv:2309.13015: N of
    M consecutive elements can be nonzero); some tools count the zeros in n.

    The pattern fixes the sparsity, ``1 - n/m``: a target other than 0 arrives there whatever it
    asks for. On the way a sparsity below that prunes ``floor(m * sparsity)`` of every group. Source
    of 2:4: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.

    Args:
        n: weights kept in a group, 1 to ``m``; the share of zeros is ``1 - n/m``.
        m: weights in a group, >= 1; the axis must be a multiple of it.
        axis: the axis along which groups lie; negative from the end. -1 is the input of linear
            layers, which is what sparse tensor cores want.

    Example:
        >>> pattern = NMStructured(n=2, m=4)
        >>> [pattern.pruned_elements((8, 8), sparsity) for sparsity in (0.2, 0.25, 0.5, 0.9)]
        [0, 16, 32, 32]
        >>> NMStructured(n=1, m=4).target_for(0.5)  # 1 of 4 is kept
        0.75
    """

    n: int = Field(ge=1, description="weights KEPT in a group, 1 to m; 1 - n/m are zeros")
    m: int = Field(ge=1, description="weights in a group, >= 1")
    axis: int = Field(-1, description="axis along which groups lie")

    @field_validator("m")
    @classmethod
    def _holds_what_is_kept(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("n", 1):
            raise ValueError(f"n is {info.data['n']}, more than m; allowed: n from 1 to m")
        return value

    def problem(self, shape: Shape) -> str | None:
        if problem := _axis_problem(self.axis, shape):
            return problem
        size = shape[self.axis]
        if size % self.m == 0:
            return None
        return (
            f"{self.n}:{self.m} needs a multiple of {self.m} weights along axis {self.axis}, "
            f"and there are {size}"
        )

    def pruned_per_group(self, sparsity: float) -> int:
        """Return how many weights of each group are pruned at a sparsity in [0, 1]."""
        # Not a floor alone: m * ((m - n) / m) may round to less than m - n.
        if sparsity >= self.target_for(1.0):
            return self.m - self.n
        return prune_count(self.m, sparsity)

    def pruned_elements(self, shape: Shape, sparsity: float) -> int:
        return prod(shape) // self.m * self.pruned_per_group(sparsity)

    def target_for(self, target_sparsity: float) -> float:
        return (self.m - self.n) / self.m if target_sparsity > 0 else 0.0


BlockSize = Annotated[int, Field(ge=-1)]


@PruningScheme.register("block")
class BlockStructured(PruningScheme):
    """Whole blocks; what a block is worth is the sum of its scores.

    Exactly ``floor(blocks * sparsity)`` blocks are pruned. Source: Gray et al. 2017, "GPU Kernels
    for Block-Sparse Weights"; Narang et al. 2017, arXiv:1711.02782.

    Args:
        block_shape: the size of a block along each axis, from the first one; -1 is the whole axis,
            axes that are not named have size 1. ``(1, 1, -1, -1)`` are the kernels of a 2-D
            convolution.

    Example:
        >>> [BlockStructured(block_shape=(4, 4)).pruned_elements((8, 8), s) for s in (0.2, 0.25)]
        [0, 16]
    """

    block_shape: tuple[BlockSize, ...] = Field(
        min_length=1, description="size of a block along each axis, >= 1, or -1 for the whole axis"
    )

    @field_validator("block_shape")
    @classmethod
    def _has_no_empty_side(cls, value: Shape) -> Shape:
        if 0 in value:
            raise ValueError(f"{value} has a 0; allowed: sizes >= 1, or -1 for the whole axis")
        return value

    def problem(self, shape: Shape) -> str | None:
        if len(self.block_shape) > len(shape):
            return (
                f"block_shape {self.block_shape} has {len(self.block_shape)} axes, "
                f"and the weight has {len(shape)}"
            )
        sides = self.sides(shape)
        for axis, (size, side) in enumerate(zip(shape, sides, strict=True)):
            if side and size % side:
                return (
                    f"blocks of {self.block_shape} need a multiple of {side} along axis {axis}, "
                    f"and there are {size}"
                )
        return None

    def sides(self, shape: Shape) -> Shape:
        """Return the size of a block along every axis of a tensor of this shape."""
        padded = self.block_shape + (1,) * (len(shape) - len(self.block_shape))
        return tuple(size if side == -1 else side for side, size in zip(padded, shape, strict=True))

    def pruned_elements(self, shape: Shape, sparsity: float) -> int:
        block = prod(self.sides(shape))
        return prune_count(prod(shape) // block, sparsity) * block if block else 0


def _axis_problem(axis: int, shape: Shape) -> str | None:
    if -len(shape) <= axis < len(shape):
        return None
    return f"axis is {axis}, and the weight has {len(shape)} axes"
