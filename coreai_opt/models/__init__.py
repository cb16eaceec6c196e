"""Small models for the first run."""

from typing import TYPE_CHECKING

from coreai_opt._lazy import lazy_exports

if TYPE_CHECKING:
    from .classifier import Classifier
    from .lr_schedules import constant, cosine
    from .networks import MLP, ConvNet, ResNet, TransformerClassifier

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
        ".classifier": ["Classifier"],
        ".lr_schedules": ["constant", "cosine"],
        ".networks": ["MLP", "ConvNet", "ResNet", "TransformerClassifier"],
    },
)
