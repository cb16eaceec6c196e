"""Operations of one forward pass, dense and pruned, counted at the end of a run."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from coreai_opt.pruning.model.model_summary import summary

# Errors of a forward pass that is missing, or wants other arguments or shapes.
UNFIT = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError)


class ExampleBatch(pl.Callback):
    """Keeps one example of the first batch that passes.

    A loader is not iterated for it: that would draw random numbers and start workers.
    """

    def __init__(self) -> None:
        self.example: Tensor | None = None
        self._is_decided = False

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._is_decided:
            return
        self._is_decided = True
        inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if isinstance(inputs, Tensor) and inputs.ndim > 0 and len(inputs) > 0:
            self.example = inputs[:1].detach().clone()

    on_validation_batch_start = on_train_batch_start


def count_operations(trainer: pl.Trainer, model: pl.LightningModule) -> dict[str, int] | None:
    """Return the floating-point operations of one forward pass of one example.

    ``dense`` are those of the unpruned model, ``effective`` those that are left when products with
    zeros are skipped; ``summary`` says what is counted. The model, its modes and torch's random
    state stay as they are.

    Args:
        trainer: has an ``ExampleBatch`` among its callbacks.
        model: called with that example.

    Returns:
        None where there is no such number: the inputs are no tensor, or the model cannot be
        called with one of them.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    example = next((one.example for one in callbacks if isinstance(one, ExampleBatch)), None)
    if example is None:
        return None
    # The trainer has moved the model to the CPU since.
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        total = summary(model, example.to(device)).total
    except UNFIT as error:
        # The training is done and measured: it must not fail for a number beside it.
        words = " ".join(str(error).split()) or "no reason was given"
        print(f"operations are not counted, {type(error).__name__}: {words}")
        return None
    if total.flops_dense is None or total.flops_effective is None:
        return None
    return {"dense": total.flops_dense, "effective": total.flops_effective}
