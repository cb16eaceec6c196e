"""Small data sets for the first run."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .modules import CIFAR10, MNIST, Digits, ImageDataModule, MNISTSubset
    from .resumable import EpochSampler, ResumableLoader
    from .sources import DataMismatchError, MissingPackageError

__all__ = [
    "CIFAR10",
    "MNIST",
    "DataMismatchError",
    "Digits",
    "EpochSampler",
    "ImageDataModule",
    "MNISTSubset",
    "MissingPackageError",
    "ResumableLoader",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".modules": ["CIFAR10", "MNIST", "Digits", "ImageDataModule", "MNISTSubset"],
        ".resumable": ["EpochSampler", "ResumableLoader"],
        ".sources": ["DataMismatchError", "MissingPackageError"],
    },
)
