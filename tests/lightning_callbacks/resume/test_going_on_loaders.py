"""Whatever loads the data, a training that is stopped and gone on with sees the same batches."""

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tests.helpers.exactness import (
    BATCHES,
    INEXACT_WARNINGS,
    RESUMING_WARNINGS,
    NoisyModule,
    PairsModule,
    Stop,
    Training,
    at_step,
    dataset,
    ours,
    plain,
    stateful,
)

pytestmark = [
    *RESUMING_WARNINGS,
    *INEXACT_WARNINGS,
    # torchdata's.
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
    pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor"),
    pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def plain_with_generator() -> DataLoader[Any]:
    return plain(generator=seeded())


def stateful_with_generator() -> Any:
    return stateful(generator=seeded())


class Stream(IterableDataset[Any]):
    """Batches that are drawn as they come: nobody knows how many."""

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(int(torch.randint(1000, ())))
        data = dataset()
        for index in torch.randperm(len(data), generator=generator):
            yield data[int(index)]


class RememberingStream(IterableDataset[Any]):
    """The same stream in every epoch; says how far it is."""

    given = begin = 0

    def __iter__(self) -> Iterator[Any]:
        begin, self.begin = self.begin, 0
        data = dataset()
        for index in range(begin, len(data)):
            self.given = index + 1
            yield data[(7 * index) % len(data)]

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.begin = state["given"]


class RememberingLoader:
    """A loader of one's own: another order in each epoch, a state, and no length."""

    def __init__(self) -> None:
        self.epoch = self.given = self.begin = 0

    def __iter__(self) -> Iterator[Any]:
        begin, self.begin = self.begin, 0
        data = dataset()
        generator = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(len(data), generator=generator).split(4)
        for index in range(begin, len(order)):
            is_last = index + 1 == len(order)
            self.epoch, self.given = (self.epoch + 1, 0) if is_last else (self.epoch, index + 1)
            yield [tensor[order[index]] for tensor in data.tensors]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.begin = state["epoch"], state["given"]
        self.given = self.begin


class SizedRememberingLoader(RememberingLoader):
    def __len__(self) -> int:
        return BATCHES


def stream() -> DataLoader[Any]:
    return DataLoader(Stream(), 4)


def stateful_stream() -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(RememberingStream(), 4)


LOADERS = [
    plain,
    plain_with_generator,
    stateful,
    stateful_with_generator,
    stream,
    stateful_stream,
    RememberingLoader,
    SizedRememberingLoader,
]


slow = partial(pytest.param, marks=pytest.mark.slow)
SOME = [data if data in (stateful, stream, RememberingLoader) else slow(data) for data in LOADERS]


@pytest.mark.parametrize("data", SOME)
def test_stopped_at_one_step_after_the_other(tmp_path: Path, data: Any) -> None:
    # Lightning is a batch ahead where the length is not known: no step follows right on another.
    stops = [at_step(step) for step in (2, BATCHES - 1, BATCHES + 1, 2 * BATCHES)]
    Training(tmp_path, data).assert_goes_on(*stops)


# torchdata's loader of an IterableDataset is not gone on with exactly there.
@pytest.mark.slow
@pytest.mark.parametrize("data", [data for data in LOADERS if data is not stateful_stream])
def test_stopped_in_epochs_that_the_trainer_cuts_short(tmp_path: Path, data: Any) -> None:
    training = Training(tmp_path, data, settings={"limit_train_batches": 4, "max_epochs": 3})
    training.assert_goes_on(at_step(2), at_step(4))


class NoisyData(TensorDataset):
    """Items with random numbers of every kind on top, as augmentations draw them."""

    def __getitem__(self, index: Any) -> Any:
        features, label = super().__getitem__(index)
        return features + torch.randn(8) / 9 + np.random.rand() + random.random(), label


@pytest.mark.parametrize(
    "data", [ours, plain, *map(slow, (plain_with_generator, stateful, stream, stateful_stream))]
)
def test_stopped_where_the_items_draw_random_numbers(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = NoisyData(*dataset().tensors)
    for module in ("tests.helpers.exactness", __name__):
        monkeypatch.setattr(f"{module}.dataset", lambda: noisy)
    Training(tmp_path, data).assert_goes_on(at_step(2), at_step(BATCHES + 2))


@pytest.mark.parametrize("data", [slow(partial(ours, 2)), partial(plain, num_workers=2)])
def test_stopped_with_workers_that_are_ahead(tmp_path: Path, data: Any) -> None:
    Training(tmp_path, data).assert_goes_on(at_step(2), at_step(BATCHES), at_step(BATCHES + 2))


def before_the_first() -> Stop:
    return lambda trainer: True


@pytest.mark.parametrize("data", [ours, plain, slow(partial(plain, num_workers=1))])
def test_stopped_before_the_first_batch(tmp_path: Path, data: Any) -> None:
    Training(tmp_path, data).assert_goes_on(before_the_first())


@pytest.mark.parametrize(
    ("mode", "data"), [("max_size_cycle", ours), ("min_size", plain), ("max_size", stateful)]
)
def test_stopped_with_several_loaders(tmp_path: Path, mode: Any, data: Any) -> None:
    def both() -> CombinedLoader:
        return CombinedLoader({"one": data(), "other": data()}, mode)

    training = Training(tmp_path, both, make=PairsModule)
    training.assert_goes_on(at_step(3), at_step(BATCHES), at_step(BATCHES + 2))


class FetchingModule(NoisyModule):
    """Fetches its batches itself."""

    def training_step(self, dataloader_iter: Any) -> Tensor:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        return self.loss(batch)


@pytest.mark.parametrize("data", [ours, plain, stateful])
def test_stopped_in_a_module_that_fetches_its_batches(tmp_path: Path, data: Any) -> None:
    training = Training(tmp_path, data, make=FetchingModule)
    training.assert_goes_on(at_step(3), at_step(BATCHES), at_step(BATCHES + 2))
