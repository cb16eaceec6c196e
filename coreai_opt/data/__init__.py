"""Small data sets for the first run."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .modules import CIFAR10 as CIFAR10
    from .modules import MNIST as MNIST
    from .modules import Digits as Digits
    from .modules import ImageDataModule as ImageDataModule
    from .modules import MNISTSubset as MNISTSubset
    from .resumable import EpochSampler as EpochSampler
    from .resumable import ResumableLoader as ResumableLoader
    from .sources import DataMismatchError as DataMismatchError
    from .sources import MissingPackageError as MissingPackageError

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
        "CIFAR10": ".modules",
        "MNIST": ".modules",
        "Digits": ".modules",
        "ImageDataModule": ".modules",
        "MNISTSubset": ".modules",
        "EpochSampler": ".resumable",
        "ResumableLoader": ".resumable",
        "DataMismatchError": ".sources",
        "MissingPackageError": ".sources",
    },
)
