"""Artefact: what a model has become for a target, and the target that makes it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

__all__ = ["Artefact", "DeployError", "Target"]


class DeployError(ValueError):
    """A model cannot become what a target needs.

    Attributes:
        target: the name of the target.
    """

    def __init__(self, target: str, sentence: str) -> None:
        self.target = target
        super().__init__(f"{target}: {sentence}")


@dataclass(frozen=True)
class Artefact:
    """What a model has become for a target.

    Attributes:
        files: the files or folders that were written.
        run: computes the outputs of a batch on this machine; None where it cannot.
        cannot_run: why it cannot, in a sentence; None where it can.
        note: what a user should know of it, in a sentence; None = nothing.
    """

    files: tuple[Path, ...]
    run: Callable[[Tensor], Tensor] | None
    cannot_run: str | None = None
    note: str | None = None


class Target(Protocol):
    """What models are deployed to.

    Attributes:
        name: how it is asked for.
        extra: the extra of this project that brings its packages; None = torch alone.
    """

    name: str
    extra: str | None

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        """Write what the model becomes.

        Args:
            model: plain, in evaluation mode, on the CPU, with its zeros in its weights; it stays as
                it is.
            example: a batch of inputs; the batch is its first dimension, and free in the artefact
                where the format can have that.
            directory: an empty one.

        Raises:
            DeployError: the model cannot become that.
        """
        ...
