"""Allocation: one target for several tensors, turned into a sparsity for each.

Plain numbers only; the global allocation, which has no share by tensor, is ``masks.global_masks``.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

Shape = tuple[int, ...]


def allocate(allocation: str, shapes: Sequence[Shape], sparsity: float) -> list[float]:
    """Return a sparsity for each tensor, so that together they have the one that is asked for.

    Args:
        allocation: ``"uniform"`` (and ``"global"``, whose tensors share one number), or
            ``"erdos_renyi"``.
        shapes: the shapes of the tensors.
        sparsity: the share of all elements to prune, in [0, 1].

    Example:
        >>> allocate("uniform", [(4, 4), (8, 8)], 0.5)
        [0.5, 0.5]
        >>> [round(share, 3) for share in allocate("erdos_renyi", [(4, 4), (16, 16)], 0.5)]
        [0.0, 0.531]
    """
    if allocation == "erdos_renyi":
        return list(erdos_renyi(tuple(shapes), sparsity))
    return [sparsity] * len(shapes)


@lru_cache(maxsize=1024)
def erdos_renyi(shapes: tuple[Shape, ...], sparsity: float) -> tuple[float, ...]:
    """Return the sparsities of the Erdos-Renyi-Kernel allocation.

    The density of a tensor is ``epsilon * (n1 + n2 + ...) / (n1 * n2 * ...)`` with its sizes ``n``:
    small tensors stay denser than large ones. ``epsilon`` is such that all together have the
    sparsity asked for. A tensor whose density would exceed 1 is left dense, and ``epsilon`` is
    computed anew for the others, until none exceeds it.

    Source: Evci et al. 2020, "Rigging the Lottery", arXiv:1911.11134, section 3 (after Mocanu et
    al. 2018, arXiv:1707.04780).

    Args:
        shapes: the shapes of the tensors.
        sparsity: the share of all elements to prune, in [0, 1].

    Returns:
        One sparsity in [0, 1] for each tensor.

    Example:
        >>> [round(share, 2) for share in erdos_renyi(((100, 100), (10, 10)), 0.9)]
        [0.91, 0.08]
    """
    sizes = [prod(shape) for shape in shapes]
    weights = [float(sum(shape) or 1) for shape in shapes]
    dense: set[int] = {index for index, size in enumerate(sizes) if size == 0}
    while True:
        others = [index for index in range(len(shapes)) if index not in dense]
        kept = (1 - sparsity) * sum(sizes) - sum(sizes[index] for index in dense)
        total = sum(weights[index] for index in others)
        epsilon = kept / total if total else 0.0
        over = {index for index in others if epsilon * weights[index] > sizes[index]}
        if not over:
            break
        dense |= over
    shares = [
        0.0 if index in dense else 1 - epsilon * weights[index] / sizes[index]
        for index in range(len(shapes))
    ]
    return tuple(min(max(share, 0.0), 1.0) for share in shares)
