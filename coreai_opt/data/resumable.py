"""Resumable loader: its order is a function of seed, epoch and position."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

Batch = TypeVar("Batch", covariant=True)


class EpochSampler(DistributedSampler[Any]):
    """Draws the order of an epoch from ``seed`` and the epoch alone, and can begin anywhere in it.

    Arguments are those of ``torch.utils.data.DistributedSampler``; without a process group give
    ``num_replicas=1, rank=0``. Lightning calls ``set_epoch``, in a loop of your own you do.

    Example:
        >>> sampler = EpochSampler(range(6), num_replicas=1, rank=0, seed=3)
        >>> whole = list(sampler)
        >>> sampler.begin_at(4)
        >>> list(sampler) == whole[4:], list(sampler) == whole
        (True, True)
    """

    _begin = 0

    def begin_at(self, position: int) -> None:
        """Leave out so many items of this epoch when it is iterated next, and of no other."""
        self._begin = position

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self._begin = 0
        super().set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        begin, self._begin = self._begin, 0
        for position, index in enumerate(super().__iter__()):
            if position >= begin:
                yield index


class ResumableLoader(DataLoader[Batch]):
    """A ``DataLoader`` that knows its position in the epoch, and resumes from there.

    Arguments are those of ``torch.utils.data.DataLoader``, with an ``EpochSampler`` and a
    ``batch_size``. Resuming loads no earlier batch. It is exact with any number of workers, if
    random draws of the data set are a function of seed, epoch and index. A ``SequentialSampler``,
    as Lightning uses for ``overfit_batches``, is taken as well, and loads earlier batches again.

    Example:
        >>> data = list(range(6))
        >>> sampler = EpochSampler(data, num_replicas=1, rank=0, seed=3)
        >>> loader = ResumableLoader(data, batch_size=2, sampler=sampler)
        >>> batches = iter(loader)
        >>> first, state = next(batches), loader.state_dict()
        >>> state
        {'epoch': 0, 'batches': 1}
        >>> rest = [batch.tolist() for batch in batches]
        >>> loader.load_state_dict(state)
        >>> [batch.tolist() for batch in loader] == rest
        True
    """

    _batches = 0
    _left_out = 0

    def __iter__(self) -> Any:
        if isinstance(self.sampler, SequentialSampler):
            self._batches, self._left_out = self._left_out, 0
            return _Counting(self, islice(super().__iter__(), self._batches, None))
        sampler = self._epoch_sampler()
        self._batches = sampler._begin // (self.batch_size or 1)
        return _Counting(self, super().__iter__())

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were taken."""
        if isinstance(self.sampler, SequentialSampler):
            return {"epoch": 0, "batches": self._batches % len(self)}
        return {"epoch": self._epoch_sampler().epoch, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Make the next iterator go on behind those batches, or at the begin of another epoch."""
        if isinstance(self.sampler, SequentialSampler):
            self._batches = self._left_out = state_dict["batches"]
            return
        sampler = self._epoch_sampler()
        sampler.set_epoch(state_dict["epoch"])
        sampler.begin_at(state_dict["batches"] * (self.batch_size or 1))
        self._batches = state_dict["batches"]

    def _epoch_sampler(self) -> EpochSampler:
        if not isinstance(self.sampler, EpochSampler) or self.batch_size is None:
            raise TypeError(
                f"the sampler is a {type(self.sampler).__name__} and batch_size {self.batch_size}; "
                "allowed: an EpochSampler, and a number"
            )
        return self.sampler


class _Counting(Iterator[Any]):
    """Counts the batches that are taken, not those that workers have loaded ahead."""

    def __init__(self, loader: ResumableLoader[Any], batches: Iterator[Any]) -> None:
        self._loader, self._inner = loader, batches

    def __next__(self) -> Any:
        batch = next(self._inner)
        self._loader._batches += 1
        return batch
