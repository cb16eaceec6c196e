"""Hash of integers: the finaliser of SplitMix64, in int64 arithmetic that wraps.

Source: Steele et al. 2014, "Fast splittable pseudorandom number generators",
doi:10.1145/2660193.2660195.
"""

from torch import Tensor

GOLDEN = -0x61C8864680B583EB  # 2**64 divided by the golden ratio, as int64
MIX = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)


def mixed(bits: Tensor) -> Tensor:
    """Return int64 numbers of which each bit depends on all bits of those that were given."""
    for shift, factor in zip((30, 27), MIX, strict=True):
        bits = (bits ^ shifted(bits, shift)) * factor
    return bits ^ shifted(bits, 31)


def shifted(bits: Tensor, places: int) -> Tensor:
    """Return int64 bits shifted right with zeros coming in; torch's own shift keeps the sign."""
    mask: int = (1 << (64 - places)) - 1
    return (bits >> places) & mask
