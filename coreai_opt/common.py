"""What several parts of the API share."""

from enum import Enum

__all__ = ["ExportBackend"]


class ExportBackend(Enum):
    """The format that a finalized model is meant for."""

    Torch = "torch"
    CoreAI = "coreai"
    CoreML = "coreml"
