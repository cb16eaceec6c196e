"""Where the training data loaders are in their epoch, and the way back there."""

import math
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.data import sized_len
from lightning_fabric.utilities.types import _Stateful
from pytorch_lightning.utilities import rank_zero_warn

from lightning_callbacks._random_state import random_state, restore_random_state

__all__ = ["InexactResumeWarning", "TrainingLoaders"]


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

    def begin(self, trainer: pl.Trainer) -> None:
        """Note what the order of the epoch will be drawn from; before its iterator is made."""
        self._begin = {"random": random_state(), "generators": _generator_states(trainer)}
        self._states = self._before = None

    def begin_first(self, trainer: pl.Trainer) -> None:
        """The same for the first epoch: its iterator is there, and nothing was fetched from it."""
        # Without workers the order is drawn with the first batch, and hooks may have drawn since.
        self._begin["first"] = random_state()

    def follow(self, trainer: pl.Trainer) -> None:
        """Note where the loaders are; after a batch, before the next is fetched."""
        if any(isinstance(loader, _Stateful) for loader in _loaders(trainer)):
            self._before, self._states = self._states, _combined(trainer)._state_dicts()

    def state(self, trainer: pl.Trainer, in_epoch: bool) -> dict[str, Any] | None:
        """Return the position; None where it cannot be told yet, but will be a batch later.

        Args:
            trainer: the trainer.
            in_epoch: whether the epoch has begun.
        """
        position = {
            "begin": self._begin if in_epoch else None,
            "generators": _generator_states(trainer),
            "states": None,
        }
        if not any(isinstance(loader, _Stateful) for loader in _loaders(trainer)):
            return position
        # Of data without a length Lightning has fetched a batch that is not used yet.
        ahead = in_epoch and bool(getattr(trainer.fit_loop._data_fetcher, "batches", None))
        states = self._before if ahead else self._states
        return None if states is None else position | {"states": states}

    def finish_epochs(self, trainer: pl.Trainer, saved: dict[str, Any]) -> None:
        """Make the loaders those that have finished the epochs before."""
        if saved["states"] is None:
            return
        _combined(trainer)._load_state_dicts(saved["states"])
        # torchdata's first iterator takes over the state of one that is at its end; the next one
        # is made as in a run that was not interrupted. An epoch that the trainer's limit has cut
        # short would be gone on with.
        if _is_cut_short(trainer) or any(_is_torchdata(loader) for loader in _loaders(trainer)):
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]

    def begin_epoch(self, trainer: pl.Trainer, saved: dict[str, Any]) -> None:
        """Draw the next epoch from what it would have been; before its iterator is made."""
        _restore_generators(trainer, saved["generators"])

    def return_to(self, trainer: pl.Trainer, saved: dict[str, Any], batches: int) -> None:
        """Continue an epoch after so many batches; loaders with a state are there already."""
        self._begin = saved["begin"]
        fetcher: Any = trainer.fit_loop._data_fetcher
        if saved["states"] is not None:
            self._states = saved["states"]
            _combined(trainer)._load_state_dicts(saved["states"])
            iter(fetcher)
            fetcher.fetched += batches
            _restore_generators(trainer, saved["generators"])
            if not all(isinstance(loader, _Stateful) for loader in _loaders(trainer)):
                _warn_of(
                    "some of several data loaders keep no state and begin their epoch anew: the "
                    "rest of it sees other batches"
                )
            return
        restore_random_state(self._begin["random"])
        _restore_generators(trainer, self._begin["generators"])
        iter(fetcher)
        if "first" in self._begin:
            restore_random_state(self._begin["first"])
        for _ in range(batches):
            next(fetcher)
        fetcher.fetched = batches
        fetcher.done = fetcher.length is not None and batches >= fetcher.length
        _warn_of(
            f"the data loader keeps no state (state_dict): its first {batches} batches were loaded "
            "once more and left out; random draws inside the data set are not repeated exactly; "
            "exact are coreai_opt.data.ResumableLoader and torchdata's StatefulDataLoader"
        )


def _warn_of(what: str) -> None:
    rank_zero_warn(
        f"resumed in the middle of an epoch: {what}", category=InexactResumeWarning, stacklevel=3
    )


def _combined(trainer: pl.Trainer) -> Any:
    return trainer.fit_loop._combined_loader


def _loaders(trainer: pl.Trainer) -> list[Any]:
    combined = _combined(trainer)
    return [] if combined is None else list(combined.flattened)


def _is_cut_short(trainer: pl.Trainer) -> bool:
    combined = _combined(trainer)
    pairs = zip(combined.flattened, combined.limits, strict=True)
    return any(limit is not None and limit < (sized_len(one) or math.inf) for one, limit in pairs)


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
