"""Digests of masks: equal for equal masks however they lie in memory, else different."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coreai_opt.pruning.masks.digest import mask_digest


def digest(mask: Tensor) -> int:
    return int(mask_digest(mask))


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 9), max_size=3).map(tuple))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return torch.rand(shape, generator=generator) < share


@given(masks(), st.integers(0, 2**16))
def test_one_flipped_element_changes_it(mask: Tensor, index: int) -> None:
    before = digest(mask)
    assert digest(mask.clone()) == before
    if mask.numel():
        flat = mask.view(-1)
        flat[index % len(flat)] ^= True
        assert digest(mask) != before


@given(masks(), st.integers(1, 40))
def test_elements_in_other_places_change_it(mask: Tensor, shift: int) -> None:
    flat = mask.flatten()
    for moved in (flat.roll(shift), flat.flip(0)):
        assert (digest(moved) == digest(flat)) == torch.equal(moved, flat)


@given(masks())
def test_the_same_elements_in_another_shape_change_it(mask: Tensor) -> None:
    shapes = {tuple(mask.shape), tuple(reversed(mask.shape)), (mask.numel(),), (1, mask.numel())}
    assert len({digest(mask.reshape(shape)) for shape in shapes}) == len(shapes)


def test_what_adds_up_to_the_same_is_told_apart() -> None:
    # With a plain sum over words, two changes that cancel out would be none.
    up, down = torch.zeros(2, 16, dtype=torch.bool)
    up[[0, 8]] = True
    down[[1, 9]] = True
    both = torch.zeros(16, dtype=torch.bool)
    both[[0, 9]] = True
    crossed = torch.zeros(16, dtype=torch.bool)
    crossed[[1, 8]] = True
    assert len({digest(mask) for mask in (up, down, both, crossed)}) == 4


def test_how_the_mask_lies_in_memory_does_not_matter() -> None:
    mask = torch.rand(4, 6, 3, 5) < 0.5
    last = mask.to(memory_format=torch.channels_last)
    part = torch.cat([torch.zeros(3, dtype=torch.bool), mask.flatten()])[3:].view(mask.shape)
    assert not last.is_contiguous()
    assert digest(last) == digest(part) == digest(mask)


def test_the_value_is_the_same_for_ever() -> None:
    # A digest may be compared between machines.
    assert digest(torch.arange(20).view(4, 5) % 3 == 0) == KNOWN


KNOWN = -6591043412462168697


def test_a_mask_of_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match=r"bool masks, and this one is torch\.float32"):
        mask_digest(torch.ones(3))
