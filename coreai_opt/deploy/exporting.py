"""Export of a model to the graph that converters read, with a free batch size."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coreai_opt.deploy.artefact import DeployError
from coreai_opt.deploy.sparse_inference import batch_of


def exported(target: str, model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return the graph of a model as ``torch.export`` traces it; the batch size is free.

    Args:
        target: its name, for the message.
        model: in evaluation mode.
        example: a batch of inputs.

    Raises:
        DeployError: the model cannot be traced, for example because its control flow depends on
            its inputs.
    """
    # A batch of 1 would be traced as the only one there is.
    inputs = batch_of(example, 2)
    free = {0: torch.export.Dim("batch", min=1)}
    with converting(target, "torch.export cannot trace the model"), torch.no_grad():
        return torch.export.export(model, (inputs,), dynamic_shapes=(free,))


@contextmanager
def converting(target: str, failure: str) -> Iterator[None]:
    """Make what a converter raises one sentence; its warnings are for its own developers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DeployError, OSError):
        raise
    except Exception as error:  # converters raise errors of any kind
        raise DeployError(target, f"{failure}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason was given'}"
