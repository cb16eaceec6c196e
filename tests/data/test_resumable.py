"""Batches whose order is a function of seed, epoch and position: the rest is the tail of it."""

from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreai_opt.data import ResumableLoader
from coreai_opt.data.resumable import EpochSampler

SMALL = st.integers(1, 30)
SEEDS = st.integers(0, 2**31)


def make(items: int, batch_size: int, seed: int = 0, **given: Any) -> ResumableLoader[Any]:
    sampler = EpochSampler(range(items), 1, 0, seed=seed)
    return ResumableLoader(list(range(items)), batch_size=batch_size, sampler=sampler, **given)


def batches(loader: ResumableLoader[Any], count: int | None = None) -> list[list[int]]:
    return [batch.tolist() for batch in islice(loader, count)]


@given(items=SMALL, replicas=st.integers(1, 4), seed=SEEDS, epoch=st.integers(0, 9), data=st.data())
def test_a_sampler_begins_anywhere(
    items: int, replicas: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    drop = data.draw(st.booleans())
    for rank in range(replicas):
        sampler = EpochSampler(range(items), replicas, rank, seed=seed, drop_last=drop)
        sampler.set_epoch(epoch)
        whole = list(sampler)
        begin = data.draw(st.integers(0, len(whole)))
        sampler.begin_at(begin)
        sampler.set_epoch(epoch)  # Lightning says so before every epoch, also the same
        assert list(sampler) == whole[begin:]
        assert list(sampler) == whole


@given(
    items=SMALL,
    batch_size=st.integers(1, 7),
    seed=SEEDS,
    epoch=st.integers(0, 9),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_a_loader_goes_on_where_another_one_was(
    items: int, batch_size: int, seed: int, epoch: int, drop_last: bool, data: st.DataObject
) -> None:
    one = make(items, batch_size, seed, drop_last=drop_last)
    one.sampler.set_epoch(epoch)
    whole = batches(one)
    taken = data.draw(st.integers(0, len(whole)))
    assert batches(one, taken) == whole[:taken]
    state = one.state_dict()
    assert state == {"epoch": epoch, "batches": taken}
    other = make(items, batch_size, seed, drop_last=drop_last)
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert batches(other) == whole[taken:]
    assert other.state_dict() == {"epoch": epoch, "batches": len(whole)}
    assert batches(other) == whole


def test_it_is_gone_on_with_several_times_in_an_epoch() -> None:
    loader = make(20, 3)
    whole, seen = batches(loader), []
    loader = make(20, 3)
    for taken in (2, 1, 3, 9):
        state = loader.state_dict()
        loader = make(20, 3)
        loader.load_state_dict(state)
        seen += batches(loader, taken)
    assert seen == whole


def test_epochs_differ_and_seeds_do() -> None:
    orders = []
    for seed in (0, 1):
        loader = make(20, 20, seed)
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            orders.append(batches(loader)[0])
    assert all(sorted(order) == list(range(20)) for order in orders)
    # The order of an epoch is drawn from the sum, as in torch's own sampler.
    assert len({tuple(order) for order in orders}) == 3


def test_another_epoch_begins_at_its_begin() -> None:
    loader = make(12, 3)
    loader.load_state_dict({"epoch": 1, "batches": 3})
    loader.sampler.set_epoch(2)
    assert len(batches(loader)) == 4


def test_what_workers_have_loaded_ahead_is_not_counted() -> None:
    loader = make(24, 3, num_workers=1, prefetch_factor=4)
    whole = batches(make(24, 3))
    given = iter(loader)
    assert [next(given).tolist() for _ in range(2)] == whole[:2]
    state = loader.state_dict()
    assert state["batches"] == 2
    del given
    loader.load_state_dict(state)
    assert batches(loader) == whole[2:]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"shuffle": True, "batch_size": 2}, "RandomSampler and batch_size 2"),
        ({"sampler": EpochSampler(range(4), 1, 0), "batch_size": None}, "EpochSampler and .* None"),
    ],
)
def test_what_cannot_be_resumed_is_refused(given: dict[str, Any], named: str) -> None:
    loader: ResumableLoader[Any] = ResumableLoader(list(range(4)), **given)
    for use in (loader.state_dict, lambda: iter(loader)):
        with pytest.raises(TypeError, match=f"the sampler is a {named}; allowed: an EpochSampler"):
            use()
    with pytest.raises(TypeError, match=named):
        loader.load_state_dict({"epoch": 0, "batches": 1})
