"""Selection of the lowest scores on the CPU: a sample, then one pass over all of them.

A sample says between which two values the cut lies. One pass then counts what is below, keeps what
is above, and collects the few between, among which the cut is selected. Whatever the sample says,
the result is that of a stable sort: where the cut is not between the two, they are put further
apart. numpy compares and selects with vector instructions, several times as fast as torch does.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil, floor, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Up to here numpy's own selection is quicker than a pass with a sample.
FEW = 1 << 17
# What is compared at once stays in the cache.
AT_ONCE = 1 << 18
# From here on the places of a sample are not remembered.
MANY = 1 << 20
# By the size of an integer in bytes.
LARGEST = {2: 0x7FFF, 4: 0x7FFF_FFFF, 8: 0x7FFF_FFFF_FFFF_FFFF}
# By how much of itself a cut may move from one step to the next, as a power of 2: its bits by a
# 4096th are a float's value by a fiftieth.
HINT_SHIFT = 12
# Standard deviations of a sample's quantile to either side: one in 2,000 samples misses the cut.
WIDTHS = (3.5, 28.0)


@dataclass(frozen=True)
class Keys:
    """Numbers in a row that say what is pruned first: the lowest.

    Args:
        array: one dimension; floats without NaN, or integers.
        bits: the array holds the bits of floats as integers, and their magnitudes are meant.
        kept: int8, 1 = has been kept so far; what has not comes below all that has. Only with
            ``bits``.
    """

    array: Array
    bits: bool = False
    kept: Array | None = None

    def __len__(self) -> int:
        return len(self.array)

    def buffer(self, size: int) -> Array | None:
        """Return room for ``read`` to work in; None where it needs none."""
        return _spare(self.array.dtype.str, size) if self.bits else None

    def read(self, begin: int, end: int, buffer: Array | None) -> Array:
        """Return the numbers of a range, comparable as they are."""
        part = self.array[begin:end]
        if buffer is None:
            return part
        kept = None if self.kept is None else self.kept[begin:end]
        return self._compared(part, kept, buffer[: end - begin])

    def at(self, places: Array) -> Array:
        """Return the numbers at some places."""
        part = self.array[places]
        if not self.bits:
            return part
        return self._compared(part, None if self.kept is None else self.kept[places], part)

    def _compared(self, part: Array, kept: Array | None, out: Array) -> Array:
        # Without their sign bit, floats are ordered as their bits are.
        np.bitwise_and(part, LARGEST[part.dtype.itemsize], out=out)
        if kept is not None:
            np.bitwise_or(out, kept - np.int8(1), out=out)  # -1 where it has not been kept
        return out


@dataclass
class Hint:
    """Where the cut was last time: between two steps of a ramp it hardly moves.

    Whatever is in it, the result is the same.
    """

    cut: int | None = None
    moved: int = 0

    def bracket(self) -> tuple[int, int] | None:
        """Return two keys between which the next cut probably lies; None = nothing is known."""
        if self.cut is None:
            return None
        reach = 2 * self.moved + (self.cut >> HINT_SHIFT) + 1
        return max(self.cut - reach, 0), self.cut + reach

    def note(self, cut: int) -> None:
        """Remember a cut; one below 0, among what has not been kept, says nothing of the next."""
        if cut >= 0:
            self.moved = 0 if self.cut is None else abs(cut - self.cut)
            self.cut = cut


_rooms = threading.local()


def _spare(kind: str, size: int) -> Array:
    """Return an array that holds nothing, the same one in each call of a thread if it is small.

    New memory costs as much as what is done in it: the system hands it out by the page.
    """
    if size > AT_ONCE:
        return np.empty(size, kind)
    room: Array | None = getattr(_rooms, kind, None)
    if room is None or len(room) < size:
        room = np.empty(AT_ONCE, kind)
        setattr(_rooms, kind, room)
    return room[:size]


class _Range(NamedTuple):
    """Some of the keys, and the part of a mask that belongs to them."""

    keys: Keys
    begin: int
    end: int
    mask: Array

    def read(self, buffer: Array | None) -> Array:
        return self.keys.read(self.begin, self.end, buffer)


class _Found(NamedTuple):
    """What a pass found in a range: how many are below, and what is not decided yet.

    ``places`` count from the begin of the range.
    """

    below: int
    places: Array
    values: Array


def mark_kept(
    rows: Sequence[Keys], count: int, masks: Sequence[Array], hint: Hint | None = None
) -> Any:
    """Write masks in which the lowest ``count`` keys are False and all others True.

    Ties go by index in the order of the rows, lowest first.

    Args:
        rows: the keys, all of one dtype.
        count: 1 to as many as there are, less one.
        masks: bool, one for each row and of its length; what is in them does not matter.
        hint: where the cut was last time, to be remembered for the next; only with ``bits``.

    Returns:
        The highest key that is marked False.
    """
    total = sum(map(len, rows))
    if total <= FEW:
        return _mark_few(rows, count, masks)
    ranges = [
        _Range(keys, begin, min(begin + AT_ONCE, len(keys)), mask[begin : begin + AT_ONCE])
        for keys, mask in zip(rows, masks, strict=True)
        for begin in range(0, len(keys), AT_ONCE)
    ]
    marking = _Marking(ranges, count, total)
    if hint is None:
        return marking.mark(rows)
    bracket = hint.bracket()
    cut = None if bracket is None else marking.between(*bracket)
    if cut is None:
        cut = marking.mark(rows)
    hint.note(int(cut))
    return cut


def mark_each(keys: Array, count: int, mask: Array) -> Array:
    """Write masks of rows of equal length; of each row the lowest ``count`` keys become False.

    Each row is a tensor of its own. Ties go by index, lowest first. Return for each row the highest
    key that is marked False.
    """
    cuts: Array = np.partition(keys, count - 1, axis=1)[:, count - 1]
    np.greater(keys, cuts[:, None], out=mask)
    ties = keys.shape[1] - count - count_rows(mask)
    for row in np.flatnonzero(ties):
        mask[row, np.flatnonzero(keys[row] == cuts[row])[-ties[row] :]] = True
    return cuts


def count_rows(rows: Array) -> Array:
    """Return how many of each row are True."""
    # Along an axis numpy adds them up as integers, which takes ten times as long.
    return np.array([np.count_nonzero(row) for row in rows], np.int64)


def _mark_few(rows: Sequence[Keys], count: int, masks: Sequence[Array]) -> Any:
    ends = np.cumsum([len(row) for row in rows])
    keys = np.empty(ends[-1], rows[0].array.dtype)
    for row, end in zip(rows, ends, strict=True):
        keys[end - len(row) : end] = row.read(0, len(row), row.buffer(len(row)))
    cut, kept = _cut(keys, count)
    end = 0
    for mask in masks:
        begin, end = end, end + len(mask)
        mask[:] = kept[begin:end]
    return cut


def _cut(keys: Array, count: int) -> tuple[Any, Array]:
    """Return the highest of the lowest ``count`` keys, and which are kept."""
    cut = np.partition(keys, count - 1)[count - 1]
    kept = keys > cut
    if ties := len(keys) - count - int(np.count_nonzero(kept)):
        kept[np.flatnonzero(keys == cut)[-ties:]] = True
    return cut, kept


class _Marking:
    """The marking of many keys, range by range."""

    def __init__(self, ranges: Sequence[_Range], count: int, total: int) -> None:
        self._ranges, self._count, self._total = ranges, count, total
        self._buffer = ranges[0].keys.buffer(min(total, AT_ONCE))

    def mark(self, rows: Sequence[Keys]) -> Any:
        """Write the masks, and return the highest key that goes."""
        sample = np.sort(_sample(rows, self._total))
        for width in WIDTHS:
            low, high = _bracket(sample, self._count / self._total, width)
            cut = self._around(low, high)
            if cut is not None:
                return cut
        # The sample was misleading.
        return self._resolve(self._each(_take_all), self._count)

    def between(self, low: Any, high: Any) -> Any:
        """Mark by a cut between two keys and equal to neither; None = it is not there."""
        found = self._each(partial(_look_between, low, high))
        below = sum(one.below for one in found)
        inside = sum(len(one.values) for one in found)
        if not below < self._count <= below + inside:
            return None
        return self._resolve(found, self._count - below)

    def _around(self, low: Any, high: Any) -> Any:
        """Mark by a cut from ``low`` to ``high``; None = it is not there."""
        if low == high:
            return self._at(low)
        # Neither end is between: many keys may be equal to it.
        cut = self.between(low, high)
        for end in (low, high):
            cut = self._at(end) if cut is None else cut
        return cut

    def _at(self, cut: Any) -> Any:
        """Mark by a cut at a value that many keys may have; None = the cut is elsewhere."""
        found = self._each(partial(_look_at, cut))
        below, ties = sum(one.below for one in found), sum(len(one.places) for one in found)
        if not below < self._count <= below + ties:
            return None
        kept = below + ties - self._count
        for one, there in zip(reversed(self._ranges), reversed(found), strict=True):
            if kept:
                one.mask[there.places[-kept:]] = True
                kept -= min(kept, len(there.places))
        return cut

    def _resolve(self, found: Sequence[_Found], count: int) -> Any:
        """Select among what is not decided: the lowest ``count`` of it go."""
        cut, kept = _cut(np.concatenate([one.values for one in found]), count)
        end = 0
        for one, there in zip(self._ranges, found, strict=True):
            begin, end = end, end + len(there.places)
            one.mask[there.places] = kept[begin:end]
        return cut

    def _each(self, look: Callable[[Array, Array], _Found]) -> list[_Found]:
        return [look(one.read(self._buffer), one.mask) for one in self._ranges]


def _look_between(low: Any, high: Any, keys: Array, mask: Array) -> _Found:
    np.greater_equal(keys, high, out=mask)
    low_or_less = np.less_equal(keys, low, out=_spare("?", len(keys)))
    below = int(np.count_nonzero(low_or_less))
    places = np.flatnonzero(np.equal(mask, low_or_less, out=low_or_less))  # neither
    return _Found(below, places, keys[places])


def _look_at(cut: Any, keys: Array, mask: Array) -> _Found:
    np.greater(keys, cut, out=mask)
    equal = keys == cut
    ties = np.flatnonzero(equal)
    return _Found(len(keys) - len(ties) - int(np.count_nonzero(mask)), ties, keys[:0])


def _take_all(keys: Array, mask: Array) -> _Found:
    return _Found(0, np.arange(len(keys)), keys.copy())


def _sample(rows: Sequence[Keys], total: int) -> Array:
    """Return keys from all over: one from each of many stretches of equal length."""
    places = _known_places(total) if total < MANY else _places(total)
    if len(rows) == 1:
        return rows[0].at(places)
    ends = np.cumsum([len(row) for row in rows])
    parts = np.split(places, np.searchsorted(places, ends[:-1]))
    begins = ends - [len(row) for row in rows]
    return np.concatenate(
        [row.at(part - begin) for row, part, begin in zip(rows, parts, begins, strict=True)]
    )


def _places(total: int) -> Array:
    stretch = max(floor(total ** (1 / 3)), 1)
    # Not at equal distances: weights may have a period.
    inside = np.random.default_rng(total).integers(0, stretch, total // stretch)
    places: Array = np.arange(0, len(inside) * stretch, stretch) + inside
    return places


_known_places = lru_cache(maxsize=64)(_places)  # a model has many layers of few sizes


def _bracket(sample: Array, share: float, width: float) -> tuple[Any, Any]:
    """Return two keys between which the cut at a share of all keys probably lies."""
    size = len(sample)
    expected, spread = size * share, width * sqrt(size * share * (1 - share)) + 1
    first, last = floor(expected - spread), ceil(expected + spread)
    low = sample[first] if first >= 0 else _ends(sample.dtype)[0]
    high = sample[last] if last < size else _ends(sample.dtype)[1]
    return low, high


def _ends(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return dtype.type(-np.inf), dtype.type(np.inf)
    return dtype.type(np.iinfo(dtype).min), dtype.type(np.iinfo(dtype).max)
