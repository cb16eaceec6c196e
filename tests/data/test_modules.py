"""Splits depend on one seed, orders on another and on the epoch."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from coreai_opt.data import Digits, ImageDataModule
from coreai_opt.data.sources import Images


def images(total: int = 20) -> Images:
    return torch.arange(total).float().view(total, 1, 1, 1), torch.arange(total) % 2


class Numbers(ImageDataModule):
    test: Images | None = None

    def load(self) -> tuple[Images, Images | None]:
        return images(), self.test


def made(**given: Any) -> Numbers:
    data = Numbers(**{"batch_size": 4, "num_train": 10, "num_val": 5, **given})
    data.setup("fit")
    return data


def epoch(data: Numbers, number: int = 0) -> list[int]:
    loader: Any = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return [int(value) for batch in loader for value in batch[0].flatten()]


def parts(data: Numbers) -> Iterator[set[int]]:
    yield set(epoch(data))
    for loader in (data.val_dataloader(), data.test_dataloader()):
        yield {int(value) for batch in loader for value in batch[0].flatten()}


def test_the_parts_are_disjoint_and_as_large_as_asked() -> None:
    train, val, test = parts(made())
    assert (len(train), len(val), len(test)) == (10, 5, 5)
    assert train | val | test == set(range(20))


def test_the_split_depends_on_its_own_seed_alone() -> None:
    assert list(parts(made(seed=1))) == list(parts(made(seed=2)))
    assert list(parts(made(split_seed=1))) != list(parts(made(split_seed=2)))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    first = epoch(made(seed=3), 5)
    torch.rand(9)
    assert epoch(made(seed=3), 5) == first
    assert epoch(made(seed=3), 6) != first
    assert epoch(made(seed=4), 5) != first
    assert epoch(made(seed=3, num_workers=1), 5) == first


def test_making_an_iterator_draws_nothing_from_the_global_generator() -> None:
    data = made()
    before = torch.get_rng_state()
    epoch(data)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_test_set_of_its_own_is_used_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Numbers, "test", images(7))
    data = made(num_train=15)
    assert len(list(parts(data))[2]) == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_train": 15}, r"num_train \(15\) and num_val \(5\) leave no image to test on"),
        ({"input_shape": [1, 2, 2]}, r"data.input_shape is \(1, 2, 2\); the data has \(1, 1, 1\)"),
        ({"num_classes": 3}, "data.num_classes is 3; the data has 2"),
    ],
)
def test_what_does_not_fit_the_data_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**given)


def test_digits_are_real_and_normalized() -> None:
    data = Digits(num_train=1200, num_val=200, input_shape=[1, 8, 8], num_classes=10)
    data.setup("fit")
    inputs, labels = next(iter(data.val_dataloader()))
    assert inputs.shape == (64, 1, 8, 8)
    assert inputs.dtype == torch.float32
    assert abs(float(inputs.mean())) < 0.2
    assert set(labels.tolist()) <= set(range(10))
