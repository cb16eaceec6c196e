"""Mask digest: a 64-bit number by which ranks compare masks without copying them."""

import torch
from torch import Tensor, nn

from coreai_opt.pruning.masks.mixing import GOLDEN, mixed

WORD = 8  # bytes
# On the CPU the parts of a mask stay in the cache while they are mixed: twice as fast.
WORDS_AT_ONCE = 1 << 15


@torch.no_grad()
def mask_digest(mask: Tensor) -> Tensor:
    """Return a 64-bit digest of a mask, computed on the device that it is on.

    The bytes are read as 64-bit words; the digest is the sum of the words, each mixed with its
    place, and of the mixed sizes of the dimensions. A sum has no order, so every device and every
    number of threads gives the same. It tells accidents apart, not what somebody constructs.

    Args:
        mask: bool, any shape.

    Returns:
        An int64 tensor without dimensions, on the mask's device.

    Raises:
        TypeError: the mask is not bool.

    Example:
        >>> mask = torch.tensor([True, False, True])
        >>> int(mask_digest(mask)) == int(mask_digest(mask.clone()))
        True
        >>> int(mask_digest(mask)) == int(mask_digest(mask.roll(1)))
        False
    """
    if mask.dtype is not torch.bool:
        raise TypeError(f"a digest is made of bool masks, and this one is {mask.dtype}")
    words = _words(mask)
    digest = _mixed_with_places(torch.tensor([mask.dim(), *mask.shape], device=mask.device)).sum()
    size = WORDS_AT_ONCE if mask.device.type == "cpu" else max(len(words), 1)
    for begin in range(0, len(words), size):
        digest += _mixed_with_places(words[begin : begin + size], begin + WORD).sum()
    return digest


def _words(mask: Tensor) -> Tensor:
    content = mask.reshape(-1).view(torch.uint8)
    missing = -len(content) % WORD
    if missing or content.storage_offset() % WORD:
        content = nn.functional.pad(content, (0, missing)).clone()
    return content.view(torch.int64)


def _mixed_with_places(words: Tensor, first: int = 0) -> Tensor:
    places = torch.arange(first + 1, first + 1 + len(words), device=words.device)
    return mixed(places.mul_(GOLDEN).add_(words))
