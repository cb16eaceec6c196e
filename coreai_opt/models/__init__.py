"""Small models for the first run."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .classifier import Classifier as Classifier
    from .lr_schedules import constant as constant
    from .lr_schedules import cosine as cosine
    from .networks import MLP as MLP
    from .networks import ConvNet as ConvNet
    from .networks import ResNet as ResNet
    from .networks import TransformerClassifier as TransformerClassifier

__all__ = [
    "MLP",
    "Classifier",
    "ConvNet",
    "ResNet",
    "TransformerClassifier",
    "constant",
    "cosine",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "MLP": ".networks",
        "Classifier": ".classifier",
        "ConvNet": ".networks",
        "ResNet": ".networks",
        "TransformerClassifier": ".networks",
        "constant": ".lr_schedules",
        "cosine": ".lr_schedules",
    },
)
