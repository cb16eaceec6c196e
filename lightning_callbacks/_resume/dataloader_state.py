"""Data loader state: the position of the training data within an epoch."""

import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch

from lightning_callbacks._lightning.root import pl, rank_zero_warn
from lightning_callbacks._lightning_internals import (
    combined_loader,
    data_fetcher,
    is_prefetching,
    load_loader_states,
    loader_states,
    module_fetches,
)
from lightning_callbacks._resume.random_state import random_state, restore_random_state


@runtime_checkable
class _Stateful(Protocol):
    """A loader that says itself where it is, by the names that Lightning asks for."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class InexactResumeWarning(UserWarning):
    """A resumed run cannot be that which was not interrupted; the message says in what."""


class TrainingLoaders:
    """The position of the training data loaders within an epoch.

    A loader with ``state_dict`` says itself where it is. Any other is begun as the interrupted run
    began its epoch, with the same random numbers, and the batches that were used are left out.
    """

    def __init__(self) -> None:
        self._begin: dict[str, Any] = {}
        self._states: list[Any] | None = None
        self._before: list[Any] | None = None
        self._fetches: list[dict[str, Any]] = []
        self._replay: dict[str, Any] | None = None

    def begin(self, trainer: pl.Trainer) -> None:
        """Note what the order of the epoch will be drawn from; before its iterator is made."""
        self._begin = {"random": random_state(), "generators": _generator_states(trainer)}
        self._states = self._before = self._replay = None
        self._fetches = []

    def begin_first(self, trainer: pl.Trainer) -> None:
        """The same for the first epoch: its iterator is there, and nothing was fetched from it."""
        # Without workers the order is drawn with the first batch, and hooks may have drawn since.
        self._begin["first"] = random_state()

    def fetch(self, trainer: pl.Trainer) -> None:
        """Note what the next batch is drawn from: it is fetched before anything can be saved."""
        if module_fetches(trainer):
            return  # the module fetches it within its step
        if self._replay is not None:
            restore_random_state(self._replay)
            self._replay = None
        # Workers draw from numbers of their own.
        if not all(map(_has_workers, _loaders(trainer))):
            self._fetches = [*self._fetches[-1:], random_state()]

    def note_states(self, trainer: pl.Trainer) -> None:
        """Note where the loaders are; after a batch, before the next is fetched."""
        if any(isinstance(loader, _Stateful) for loader in _loaders(trainer)):
            self._before, self._states = self._states, loader_states(trainer)

    def state(self, trainer: pl.Trainer, in_epoch: bool) -> dict[str, Any] | None:
        """Return the position; None = the loaders cannot say it yet, but will a batch later."""
        position = {
            # The first epoch's iterator is made long before it begins.
            "begin": self._begin if in_epoch or trainer.current_epoch == 0 else None,
            "generators": _generator_states(trainer),
            "fetches": self._fetches if in_epoch else [],
            "states": None,
        }
        if not any(isinstance(loader, _Stateful) for loader in _loaders(trainer)):
            return position
        states = self._before if in_epoch and _is_ahead(trainer) else self._states
        return None if states is None else position | {"states": states}

    def finish_epochs(self, trainer: pl.Trainer, saved: dict[str, Any]) -> None:
        """Make the loaders those that have finished the epochs before."""
        if saved["states"] is None:
            return
        load_loader_states(trainer, saved["states"])
        # torchdata's first iterator takes over the state of one that is at its end; the next one
        # is made as in a run that was not interrupted. An epoch that the trainer's limit has cut
        # short would be gone on with; a loader that is a generator does so with its first batch.
        fetcher = data_fetcher(trainer)
        is_torchdata = any(_is_torchdata(loader) for loader in _loaders(trainer))
        if _is_cut_short(trainer) or is_torchdata:
            iter(fetcher)
        if _is_cut_short(trainer) and not is_torchdata:
            next(fetcher, None)

    def begin_epoch(self, trainer: pl.Trainer, saved: dict[str, Any]) -> None:
        """Draw the epoch from what it would have been; before its iterator is made, but for that
        of the first epoch, which is made anew.
        """
        if saved["begin"] is not None:
            self._begin_anew(trainer, saved["begin"])
        _restore_generators(trainer, saved["generators"])

    def return_to(self, trainer: pl.Trainer, saved: dict[str, Any], batches: int) -> None:
        """Continue an epoch after so many batches; loaders with a state are there already."""
        fetches = saved["fetches"]
        # The last batch but one is fetched already, or the iterator fetches it.
        ahead = fetches[0] if _is_ahead(trainer) and len(fetches) > 1 else None
        if saved["states"] is not None:
            self._load(trainer, saved, batches, ahead)
        else:
            self._skip_batches(trainer, saved, batches, ahead)
        if fetches:
            self._replay = fetches[-1]

    def _load(
        self, trainer: pl.Trainer, saved: dict[str, Any], batches: int, ahead: dict[str, Any] | None
    ) -> None:
        fetcher = data_fetcher(trainer)
        self._begin = saved["begin"]
        load_loader_states(trainer, saved["states"])
        self._replay = ahead
        iter(fetcher)
        fetcher.fetched += batches
        _restore_generators(trainer, saved["generators"])
        if not all(isinstance(loader, _Stateful) for loader in _loaders(trainer)):
            _warn_of(
                "some of several data loaders keep no state and begin their epoch anew: the rest "
                "of it sees other batches"
            )

    def _skip_batches(
        self, trainer: pl.Trainer, saved: dict[str, Any], batches: int, ahead: dict[str, Any] | None
    ) -> None:
        fetcher = data_fetcher(trainer)
        self._begin_anew(trainer, saved["begin"])
        if "first" in self._begin:
            restore_random_state(self._begin["first"])
        # Where the module fetches its batches itself, the fetcher gives no more than an iterator.
        given = getattr(fetcher, "iterator_wrapper", fetcher)
        for batch in range(batches):
            if batch == batches - 1:
                self._replay = ahead
            next(given)
        fetcher.fetched = batches
        fetcher.done = fetcher.length is not None and batches >= fetcher.length
        if any(map(_has_workers, _loaders(trainer))):
            _warn_of(
                "the data loader keeps no state (state_dict), and what its workers draw at random "
                "is not repeated exactly; exact is coreai_opt.data.ResumableLoader, as long as the "
                "items are a function of epoch and index"
            )

    def _begin_anew(self, trainer: pl.Trainer, begin: dict[str, Any]) -> None:
        """Make the epoch's iterator from the random numbers that it was made from."""
        self._begin = begin
        restore_random_state(begin["random"])
        _restore_generators(trainer, begin["generators"])
        iter(data_fetcher(trainer))


def repeats_exactly(trainer: pl.Trainer) -> bool:
    """Return whether a resumed epoch gets the batches that it would have got, as far as is known.

    What workers draw at random is lost, unless it is in the state that a loader keeps.
    """
    loaders = _loaders(trainer)
    return all(isinstance(one, _Stateful) or not _has_workers(one) for one in loaders)


def _warn_of(what: str) -> None:
    rank_zero_warn(
        f"resumed in the middle of an epoch: {what}", category=InexactResumeWarning, stacklevel=3
    )


def _loaders(trainer: pl.Trainer) -> list[Any]:
    combined = combined_loader(trainer)
    return [] if combined is None else list(combined.flattened)


def _has_workers(loader: Any) -> bool:
    return getattr(loader, "num_workers", 0) > 0


def _is_ahead(trainer: pl.Trainer) -> bool:
    """Return whether a batch is fetched before the one before it is used: without a length."""
    return is_prefetching(trainer) and data_fetcher(trainer).length is None


def _is_cut_short(trainer: pl.Trainer) -> bool:
    combined = combined_loader(trainer)
    pairs = zip(combined.flattened, combined.limits, strict=True)
    return any(limit is not None and limit < _length(one) for one, limit in pairs)


def _length(loader: Any) -> float:
    """Return the batches of a loader; infinite = not known."""
    try:
        return len(loader) or math.inf
    except (TypeError, NotImplementedError):
        return math.inf


def _generators(trainer: pl.Trainer) -> Iterator[torch.Generator]:
    """Yield the generators of their own that loaders and samplers draw from."""
    seen: set[int] = set()
    for loader in _loaders(trainer):
        sampler = getattr(loader, "sampler", None)
        batch_sampler = getattr(loader, "batch_sampler", None)
        for owner in (loader, sampler, batch_sampler, getattr(batch_sampler, "sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator) and id(generator) not in seen:
                seen.add(id(generator))
                yield generator


def _generator_states(trainer: pl.Trainer) -> list[torch.Tensor]:
    return [generator.get_state() for generator in _generators(trainer)]


def _restore_generators(trainer: pl.Trainer, states: list[torch.Tensor]) -> None:
    for generator, state in zip(_generators(trainer), states, strict=False):
        generator.set_state(state)


def _is_torchdata(loader: Any) -> bool:
    return any(kind.__module__.startswith("torchdata.") for kind in type(loader).__mro__)
