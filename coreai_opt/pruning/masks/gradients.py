"""Masking the gradient of a dense weight, in its own memory where nobody else holds it."""

import sys
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.hooks import unserializable_hook

from coreai_opt.pruning.masks.masking import mask_in_place

__all__ = ["MaskedGradient", "Room", "masking_hook"]


class Room:
    """Memory for a tensor, which is used again when nobody holds it any more."""

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._alone: int | None = None
        self._lock = Lock()

    def like(self, values: Tensor) -> Tensor | None:
        """Return room for a tensor of the same kind; None = it is for the caller to make."""
        if torch.is_inference_mode_enabled():
            return None  # made in inference mode, it could not be used in a training afterwards
        if values.device.type != "cpu" or not values.is_contiguous():
            return None
        with self._lock:  # who gets it, holds it before another thread asks
            return self._free(values).detach()

    def _free(self, values: Tensor) -> Tensor:
        there = self._tensor
        if (
            there is not None
            and (there.shape, there.dtype) == (values.shape, values.dtype)
            and self._alone is not None
            and _storage_holders(there) == self._alone
        ):
            return there
        self._tensor = torch.empty_like(values, requires_grad=False)
        self._alone = _storage_holders(self._tensor)
        return self._tensor

    def __deepcopy__(self, memo: Any) -> "Room":
        return Room()

    def __reduce__(self) -> tuple[type["Room"], tuple[()]]:
        return Room, ()


class MaskedGradient:
    """Remembers the gradient that was masked last, as long as nobody changes it or the mask."""

    def __init__(self) -> None:
        self._memory: StorageWeakRef | None = None
        self._versions = (0, 0)

    def mask(self, gradient: Tensor, mask: Tensor) -> Tensor:
        """Return what a backward pass gives to a leaf, masked: in place where it is nobody else's.

        To be called by a hook of the leaf alone.
        """
        if (
            torch.is_grad_enabled()
            or not _is_packed(gradient)
            or _holders(gradient) not in _alone()
        ):
            # To be differentiated once more, or somebody else's as well; of a sum, one number.
            gradient = torch.where(mask, gradient, 0)
        else:
            mask_in_place(gradient, mask)
        self._remember(gradient, mask)
        return gradient

    def ensure(self, weight: Tensor, mask: Tensor) -> None:
        """Mask the gradient that a weight has been given, unless it is as it was masked."""
        gradient = weight.grad
        if gradient is None or gradient.layout is not torch.strided:
            return
        if any(
            size > 1 and not step
            for size, step in zip(gradient.shape, gradient.stride(), strict=True)
        ):
            weight.grad = torch.where(mask, gradient, 0)  # one number for many
            return
        versions = (gradient._version, mask._version)
        if self._memory is None or (self._memory, self._versions) != (_memory(gradient), versions):
            mask_in_place(gradient, mask)
            self._remember(gradient, mask)

    def _remember(self, gradient: Tensor, mask: Tensor) -> None:
        # Of what vmap has batched, no leaf keeps the memory.
        self._memory = _memory(gradient) if torch._C._has_storage(gradient) else None
        self._versions = (gradient._version, mask._version)

    def __deepcopy__(self, memo: Any) -> "MaskedGradient":
        return MaskedGradient()

    def __reduce__(self) -> tuple[type["MaskedGradient"], tuple[()]]:
        return MaskedGradient, ()


def masking_hook(owner: Callable[[], Any]) -> Callable[[Tensor], Tensor]:
    """Return a hook for a dense weight that masks its gradient; the owner may be gone."""

    @unserializable_hook  # type: ignore[untyped-decorator]
    def hook(gradient: Tensor) -> Tensor:
        impl = owner()
        return gradient if impl is None else impl.mask_gradient(gradient)

    return cast(Callable[[Tensor], Tensor], hook)


def _memory(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _storage_holders(tensor: Tensor) -> int | None:
    """Return how many hold the memory of a tensor; None = this torch does not tell."""
    count = getattr(torch._C, "_storage_Use_Count", None)
    if count is None:
        return None
    storage = tensor.untyped_storage()
    # Who holds the storage itself holds the one object that Python has of it.
    holders: int = count(storage._cdata) + sys.getrefcount(storage)
    return holders


def _is_packed(gradient: Tensor) -> bool:
    """Return whether each element has a place of its own in a memory without gaps.

    What is expanded has not, what is sparse or batched by vmap has no memory to ask for.
    """
    if not torch._C._has_storage(gradient):
        return False
    expected = 1
    for stride, size in sorted(zip(gradient.stride(), gradient.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _holders(gradient: Tensor) -> tuple[int | None, ...]:
    """Return how many hold a gradient: its memory, the tensor itself, and what it is a view of."""
    base = gradient._base
    counts = [_storage_holders(gradient)]
    tensors: Any = (gradient,) if base is None else (gradient, base)
    for tensor in tensors:
        counts += [tensor._use_count(), sys.getrefcount(tensor)]
    return tuple(counts)


@cache
def _alone() -> set[tuple[int | None, ...]]:
    """Return what ``_holders`` says within a hook when nobody else holds the gradient.

    It is seen, not known: of a product, and of what a linear layer gives, which is a view.
    """
    seen: set[tuple[int | None, ...]] = set()
    if not hasattr(Tensor, "_use_count") or not hasattr(torch._C, "_storage_Use_Count"):
        return seen

    class Witness(MaskedGradient):
        no_mask = torch.ones(0)

        def mask(self, gradient: Tensor, mask: Tensor) -> Tensor:
            seen.add(_holders(gradient))
            return gradient

    class Owner:
        """Calls as deep as a ``PruneImplBase``: what is called holds the gradient as well."""

        def mask_gradient(self, gradient: Tensor) -> Tensor:
            return witness.mask(gradient, witness.no_mask)

    witness = Witness()

    with torch.enable_grad(), torch.inference_mode(False):
        weight: Any = nn.Parameter(torch.ones(2, 2))
        weight.register_hook(masking_hook(Owner))
        results: Any = (
            weight * torch.full((2, 2), 2.0),
            nn.functional.linear(torch.ones(3, 2), weight).square(),
        )
        for result in results:
            result.sum().backward()
    return seen
