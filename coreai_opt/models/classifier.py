"""Classifier: a LightningModule around any network of logits."""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Classifier(pl.LightningModule):
    """Cross entropy and accuracy for a network that maps a batch of inputs to logits.

    It logs ``train/loss`` at steps, ``val/loss``, ``val/accuracy``, ``test/loss`` and
    ``test/accuracy`` (shares of 1) at the end of epochs.

    Args:
        network: inputs ``(batch, ...)`` to logits ``(batch, classes)``.
        optimizer: called with the parameters; None = SGD at 0.1 with momentum 0.9.
        lr_schedule: called with the optimizer and ``total_steps``, stepped after every optimizer
            step; None = a fixed learning rate.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: MakeOptimizer | None = None,
        lr_schedule: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._make_optimizer = optimizer
        self._make_lr_schedule = lr_schedule

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = functional.cross_entropy(self(inputs), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch)

    def configure_optimizers(self) -> Any:
        make = self._make_optimizer or _default_optimizer
        optimizer = make(self.parameters())
        if self._make_lr_schedule is None:
            return optimizer
        total_steps = int(self.trainer.estimated_stepping_batches)
        schedule = self._make_lr_schedule(optimizer, total_steps=total_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor]) -> None:
        inputs, labels = batch
        logits = self(inputs)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        metrics = {
            f"{stage}/loss": functional.cross_entropy(logits, labels),
            f"{stage}/accuracy": accuracy,
        }
        self.log_dict(metrics, prog_bar=True, batch_size=len(labels), sync_dist=True)


def _default_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return SGD(parameters, lr=0.1, momentum=0.9)
