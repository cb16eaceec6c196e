"""Lightning's averaging callbacks beside pruning: their copies of the model carry its masks."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.copying import copy_of
from coreai_opt.pruning.spec.prune_impl import PruneImplBase
from coreai_opt.pruning.targets import PrunedTensor, pruned_tensors
from lightning_callbacks._instance_hooks import InstanceHooks
from lightning_callbacks._roots import of_root

__all__ = ["MaskedAverages", "evaluate_the_average", "planned_epochs"]

AveragingCallback = StochasticWeightAveraging | WeightAveraging
"""Those of ``pytorch_lightning`` stand for those of both roots."""

AVERAGING = ("StochasticWeightAveraging", "WeightAveraging")


class MaskedAverages:
    """The averages that callbacks keep of one pruned module: dense averages under its own masks.

    Lightning's callbacks copy the module in their ``setup``, when it has no masks yet, and pair the
    tensors of copy and module by position. ``renew`` gives them a copy that has the masks.
    ``follow`` keeps its masks equal to those of the module, so that swapping both, as a validation
    does, moves none.
    """

    def __init__(self) -> None:
        self._module: nn.Module | None = None
        self._callbacks: list[WeightAveraging] = []
        self._followers: dict[WeightAveraging, _Follower] = {}
        self._hooks = InstanceHooks()

    def renew(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Copy the module anew for each callback that has a copy, onto the device of that."""
        for callback in _averaging_callbacks(trainer):
            average = _average_of(callback)
            if isinstance(average, AveragedModel):
                average.module = copy_of(module).to(average.n_averaged.device)
            elif average is not None:
                callback._average_model = copy_of(module)

    def begin(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Follow the masks of the module from here on."""
        self.release()
        self._module = module
        # Of a StochasticWeightAveraging nothing but the parameters is ever used.
        callbacks = _averaging_callbacks(trainer)
        moving = of_root(trainer, "callbacks", "WeightAveraging")
        self._callbacks = [each for each in callbacks if isinstance(each, moving)]
        self.follow()

    def follow(self) -> None:
        """Take over the masks of the module, if they have changed."""
        for callback in self._callbacks:
            average, follower = _average_of(callback), self._followers.get(callback)
            if average is None or self._module is None:
                continue
            # A subclass may make its average late, or make another.
            if follower is None or follower.average is not average:
                follower = self._followers[callback] = _Follower(self._module, average)
                self._hooks.around(average, "update_parameters", follower.without_masks)
            follower.follow()

    def release(self) -> None:
        """Follow no longer."""
        self._hooks.restore()
        self._module, self._callbacks = None, []
        self._followers.clear()

    def drop_strangers(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take away averages of another structure: of a model that had masks, or of another one.

        They would be swapped, tensor by tensor, with a module that they do not fit.
        """
        names = _names(module)
        for callback in _averaging_callbacks(trainer):
            average = _average_of(callback)
            if isinstance(average, AveragedModel) and _names(average.module) != names:
                callback._average_model = None


class _Follower:
    """Keeps the masks of one average equal to those of the module, and out of the averaging."""

    def __init__(self, module: nn.Module, average: AveragedModel) -> None:
        if _names(average.module) != _names(module):
            raise PruningError(
                "the average that a WeightAveraging callback keeps has other tensors than the "
                "model: it was copied before the model had its masks, or all of its layers; "
                "allowed: a copy made in the callback's setup, or after the training has begun"
            )
        self.average = average
        ours, theirs = list(pruned_tensors(module)), list(pruned_tensors(average.module))
        self._chains = [(_chain(tensor), tensor.impl) for tensor in [*ours, *theirs]]
        self._pairs = [(one.impl, other.impl) for one, other in zip(ours, theirs, strict=True)]
        # A criterion of a user's own may keep tensors that change with every step.
        self._richer = [pair for pair in self._pairs if len(_tensors(pair[0])) > 1]
        for impl, other in self._pairs:
            other.clock = impl.clock
        _copy_state(self._pairs)

    def follow(self) -> None:
        changed = any(theirs.sparsity != ours.sparsity for ours, theirs in self._pairs)
        _copy_state(self._pairs if changed else self._richer)

    @contextmanager
    def without_masks(self) -> Iterator[None]:
        """Hide the masks, and all else that a criterion keeps, from whoever lists the tensors."""
        # With use_buffers AveragedModel averages every buffer: a mask would become the union of
        # all masks so far, or stop the training, as bool tensors cannot be subtracted. Put in by
        # way of the list of modules, a placeholder takes 30 times as long.
        for chain, _ in self._chains:
            chain._modules["0"] = None
        try:
            yield
        finally:
            for chain, impl in self._chains:
                chain._modules["0"] = impl


def evaluate_the_average(checkpoint: dict[str, Any]) -> None:
    """Make a loaded checkpoint give its average to whatever evaluates it, as it does to others.

    In the process of the training ``WeightAveraging`` would put the weights of the last step in its
    place: right for going on, but a test would measure a model that was never validated.
    """
    if "current_model_state" in checkpoint:
        checkpoint["current_model_state"] = checkpoint["state_dict"]


def planned_epochs(trainer: pl.Trainer) -> float:
    """Return the epochs that the module is trained for; infinite = no limit.

    An epoch that ``StochasticWeightAveraging`` appends to measure statistics for batch
    normalization is none of them. (It does make one step, with the last batch and old gradients:
    Lightning skips the backward pass and means to skip the step.)
    """
    limits = [math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)]
    stochastic = of_root(trainer, "callbacks", "StochasticWeightAveraging")
    for callback in _averaging_callbacks(trainer):
        if isinstance(callback, stochastic):
            # Without a value before the fit begins, when there is no such epoch either.
            limits.append(getattr(callback, "swa_end", math.inf) + 1)
    return min(limits)


def _averaging_callbacks(trainer: pl.Trainer) -> list[AveragingCallback]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    kinds = tuple(of_root(trainer, "callbacks", name) for name in AVERAGING)
    return [callback for callback in callbacks if isinstance(callback, kinds)]


def _average_of(callback: AveragingCallback) -> Any:
    # Lightning has no public name for it.
    if not hasattr(callback, "_average_model"):
        raise PruningError(
            f"{type(callback).__name__} has no _average_model, so that its average cannot be given "
            "masks; allowed: a version of pytorch_lightning that keeps it there, as 2.6 does, or "
            "training without this callback"
        )
    return callback._average_model


def _copy_state(pairs: Iterable[tuple[PruneImplBase, PruneImplBase]]) -> None:
    for ours, theirs in pairs:
        theirs.load_state_dict(ours.state_dict())


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _names(module: nn.Module) -> list[str]:
    """Return the names of parameters and buffers in the order in which averages pair them."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, _ in tensors]


def _chain(tensor: PrunedTensor) -> Any:
    """Return the parametrizations of a pruned tensor; the first is the one with the mask."""
    parametrizations: Any = tensor.module.parametrizations
    return parametrizations[tensor.parameter]
