"""Application of a mask to a tensor, the cost of pruning in each training step."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from coreai_opt.pruning._torch_internals import has_storage
from coreai_opt.pruning.masks import host as _host

# Integers of the size of a float: times 0 or 1 they are 0, or the float's own bits. On the CPU this
# takes a quarter of the time of torch.where, and unlike a product of floats it never gives NaN.
INTEGERS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
# What is multiplied at once stays in the cache, together with the mask as wide integers.
AT_ONCE = 1 << 16
SMALL = 1 << 13
LARGE = 1 << 15


class _Masked(torch.autograd.Function):
    # Not with a setup_context: torch would look up the signature in every call.
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.mask = mask  # not saved: a mask may change before a graph is used again
        return masked(weight.detach(), mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return masked_gradient(gradient, ctx.mask), None


def masked_weight(weight: Tensor, mask: Tensor) -> Tensor:
    """Return a weight with its pruned elements at +0.0; their gradients are 0 as well.

    A product would not do: an infinite weight that is pruned has to become 0, not NaN.
    """
    if weight.device.type != "cpu" or weight.numel() < LARGE:
        return torch.where(mask, weight, 0)  # sooner than Python calls anything
    function: Any = _Masked
    result: Tensor = function.apply(weight, mask)
    return result


def masked_gradient(gradient: Tensor, mask: Tensor) -> Tensor:
    """Return a gradient with its pruned elements at +0.0, in a new tensor."""
    if torch.is_grad_enabled() or not has_storage(gradient):
        return torch.where(mask, gradient, 0)  # to be differentiated again, or batched
    return masked(gradient, mask)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return values with those at +0.0 whose mask is False; not to be differentiated through."""
    if not _in_a_row(values, mask):
        return torch.where(mask, values.detach(), 0)
    result = torch.empty_like(values)
    for one, kept, out in _rows(values, mask, result):
        torch.mul(one, kept, out=out)
    return result


@torch.no_grad()
def mask_in_place(values: Tensor, mask: Tensor) -> None:
    """Set values to +0.0 where their mask is False; autograd does not get to know of it."""
    values = values.data
    if not _in_a_row(values, mask):
        values.masked_fill_(mask.logical_not(), 0)
        return
    for one, kept, out in _rows(values, mask, values):
        torch.mul(one, kept, out=out)


@torch.no_grad()
def put_back(values: Tensor, mask: Tensor, before: Tensor) -> None:
    """Set values to those from before where their mask is False, bit for bit."""
    _join(values, mask, before, values)


@torch.no_grad()
def take_kept(values: Tensor, mask: Tensor, others: Tensor) -> None:
    """Set values to those of another tensor where their mask is True, bit for bit."""
    _join(others, mask, values, values)


def is_own_memory(value: Tensor) -> bool:
    """Return whether a tensor can be changed in place: each element has a place of its own."""
    if value.requires_grad or value.layout is not torch.strided:
        return False
    if value.is_contiguous():
        return True
    return not any(
        size > 1 and not stride for size, stride in zip(value.shape, value.stride(), strict=True)
    )


def _join(true: Tensor, mask: Tensor, false: Tensor, out: Tensor) -> None:
    if not (_in_a_row(true, mask) and _in_a_row(false, mask)):
        out.copy_(torch.where(mask, true, false))
        return
    rows = zip(_rows(true, mask, out), torch.split(_integers(false), AT_ONCE), strict=True)
    for (one, kept, result), other in rows:
        # What is where it is False, and upon it what differs where it is True.
        changed = torch.bitwise_xor(one, other).mul_(kept)
        torch.bitwise_xor(changed, other, out=result)


def _in_a_row(values: Tensor, mask: Tensor) -> bool:
    """Return whether both lie in the memory of the host, element after element.

    Small tensors are left to torch's own ways, which need fewer calls.
    """
    return (
        values.numel() >= SMALL
        and type(values) in (Tensor, nn.Parameter)
        and type(mask) is Tensor
        and _host.on_host(values)
        and values.dtype in INTEGERS
        and values.is_contiguous()
        and mask.is_contiguous()
        and not values.is_neg()
    )


def _rows(values: Tensor, mask: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield values, mask and result as integers in one dimension, a part at a time."""
    rows = (_integers(values), mask.view(-1).view(torch.int8), _integers(out))
    if values.numel() <= AT_ONCE:
        yield rows
        return
    yield from zip(*(torch.split(row, AT_ONCE) for row in rows), strict=True)


def _integers(values: Tensor) -> Tensor:
    return values.detach().view(-1).view(INTEGERS[values.dtype])
