"""PrunedWeights: a file with the plain weights, and a warning below the target."""

import os
import pickle
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coreai_opt.pruning import PruningError, plain_state_dict
from coreai_opt.pruning._torch_internals import metadata_of, set_metadata
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.root import pl, rank_zero_info, rank_zero_warn
from lightning_callbacks._lightning.roots import callbacks_of
from lightning_callbacks._resume.unsafe_globals import load_without_foreign

# When this process began, for what other Trainers of it have written.
STARTED = time.time()

SIGNATURE = "written_by_pruned_weights"

# What torch.load raises for a file that is none of its own, or holds other objects than tensors.
UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError)


class WeightsBelowTargetWarning(UserWarning):
    """Weights that are written, tested or chosen as best have fewer zeros than was asked for."""


class PrunedWeights(pl.Callback):
    """Writes the masked weights when a fit has ended, and says what sparsity they have.

    Rank 0 writes ``weights.pt``: the ``state_dict()`` of the module, which
    ``torch.load(path, weights_only=True)`` reads without this package. The file is written beside
    its place and renamed. Where another Trainer of this process has written one into the same
    directory, or somebody else has, it is called ``weights-2.pt``, and so on; a second fit with the
    same callback, and a new process, overwrite what this callback has written. ``fast_dev_run``
    writes it as well. A fit that is broken off writes nothing.

    One line says the sparsity now, the target, the file, and what the trainer's best checkpoint
    has: the first ``ModelCheckpoint`` that monitors a metric and has chosen one. It is a
    ``WeightsBelowTargetWarning`` if one of the two is below the target. A model without masks is
    written as it is.

    ``test``, ``validate`` and ``predict`` outside a fit warn when the weights are below the target,
    with both numbers and the file. What was asked of them is remembered from the fit, and comes in
    its checkpoints to another process.

    Zeros are counted in the weights. A target is a number of zeros, rounded down for each weight in
    its pattern; weights with as many are at target.

    Args:
        dirpath: a local directory, made if need be; None = the trainer's ``default_root_dir``.

    Attributes:
        path: the file of the last fit, on rank 0; None before.

    Raises:
        PruningError: at the beginning of a fit, the directory is not a local one.

    Example:
        >>> from lightning_callbacks import PrunedWeights, ScheduledPruning
        >>> trainer = pl.Trainer(callbacks=[ScheduledPruning(), PrunedWeights()], logger=False)
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        self.dirpath = dirpath
        self.path: Path | None = None
        self._asked = _Asked()
        self._since = STARTED  # of the process that made it, in spawned ones too
        self._hooks = MethodPatches()

    def __getstate__(self) -> dict[str, Any]:
        # A copy has a file of its own.
        return self.__dict__ | {"path": None, "_hooks": MethodPatches()}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._hooks.restore()
        if stage == "fit":
            self._folder(trainer)
        else:
            # Before 2.5 Lightning tells callbacks of a checkpoint for a fit alone.
            self._hooks.before(trainer.strategy, "load_model_state_dict", self._look)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._hooks.restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._hooks.restore()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._asked = _Asked.of(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After on_train_end, in which averages of weights take their places.
        self._asked = _Asked.of(pl_module) or self._asked
        state = plain_state_dict(trainer.strategy.lightning_module_state_dict())
        if trainer.is_global_zero:
            self.path = self._write(state, self._folder(trainer))
            self._say(trainer, state)
        trainer.strategy.barrier("weights.pt")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._warn_of(trainer, pl_module, "the test")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._warn_of(trainer, pl_module, "the validation")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._warn_of(trainer, pl_module, "the prediction")

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self._asked.state_dict()} if self._asked else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._asked = _Asked.from_state(state_dict.get("asked", {}))

    def adopt_targets(self, other: "PrunedWeights") -> None:
        """Ask of weights that are tested what another callback asked of those that it saw trained.

        Args:
            other: of another Trainer; a fit and a checkpoint of one's own go before it.
        """
        self._asked = self._asked or other._asked

    def _look(self, checkpoint: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        if state := checkpoint.get("callbacks", {}).get(self.state_key):
            self.load_state_dict(state)

    def _folder(self, trainer: pl.Trainer) -> Path:
        folder = str(self.dirpath or trainer.default_root_dir)
        if "://" in folder:
            raise PruningError(
                f"PrunedWeights cannot write to {folder}, which is no local directory; allowed: "
                "dirpath=, a local directory"
            )
        return Path(folder).absolute()

    def _write(self, state: Mapping[str, Any], folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = self._place(folder)
        beside = folder / f".{path.name}.{os.getpid()}"
        try:
            torch.save(_signed(state), beside)
            now = time.time()
            os.utime(beside, (now, now))  # not by the clock of a file server
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return path

    def _place(self, folder: Path) -> Path:
        """Return its own file again, else the first that is free or of an earlier process."""
        if self.path is not None and self.path.parent == folder:
            return self.path
        path, number = folder / "weights.pt", 1
        while path.exists() and (path.stat().st_mtime >= self._since or not _is_signed(path)):
            number += 1
            path = folder / f"weights-{number}.pt"
        return path

    def _say(self, trainer: pl.Trainer, state: Mapping[str, Any]) -> None:
        if not self._asked:
            rank_zero_info(f"not pruned, no weight has a mask: weights in {self.path}")
            return
        now = self._asked.count(state.get)
        best, sentence = _best_of(trainer, self._asked)
        text = f"{now}, weights in {self.path}{sentence}"
        if now.is_below or (best is not None and best.is_below):
            what = "the weights are" if now.is_below else "the best checkpoint is"
            rank_zero_warn(
                f"{what} below the target: {text}",
                category=WeightsBelowTargetWarning,
            )
        else:
            rank_zero_info(f"pruned: {text}")

    def _warn_of(self, trainer: pl.Trainer, pl_module: pl.LightningModule, phase: str) -> None:
        asked = _Asked.of(pl_module) or self._asked
        counted = asked.count(lambda name: _weight_of(pl_module, name))
        if counted.is_below:
            file = trainer.ckpt_path or "the weights in memory"
            rank_zero_warn(
                f"{phase} runs below the target, on {file}: {counted}",
                category=WeightsBelowTargetWarning,
            )


def _signed(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return a state dict by which the file is known as one of this callback."""
    signed = OrderedDict(state)
    set_metadata(signed, {"": {SIGNATURE: True}})  # where torch keeps what is no tensor
    return signed


def _is_signed(path: Path) -> bool:
    try:
        metadata = metadata_of(load_without_foreign(path, mmap=True))
    except UNREADABLE:
        return False
    return SIGNATURE in metadata.get("", {})


class _Counted(NamedTuple):
    """Zeros counted in weights, and what was asked of them."""

    elements: int
    zeros: int
    asked: int
    target: float

    @property
    def is_below(self) -> bool:
        return self.zeros < self.asked

    @property
    def sparsity(self) -> float:
        return self.zeros / self.elements if self.elements else 0.0

    def __str__(self) -> str:
        return (
            f"sparsity {self.sparsity:.4f} of {self.elements:,} weights (target {self.target:.4f})"
        )


@dataclass(frozen=True)
class _Asked:
    """By the name of a weight, the zeros that are asked of it and its target sparsity in [0, 1]."""

    weights: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.weights)

    @classmethod
    def of(cls, model: pl.LightningModule) -> "_Asked":
        tensors = pruned_tensors(model)
        return cls({each.name: (each.asked, each.impl.target_sparsity) for each in tensors})

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "_Asked":
        return cls({name: (int(zeros), float(target)) for name, (zeros, target) in state.items()})

    def state_dict(self) -> dict[str, list[float]]:
        return {name: list(asked) for name, asked in self.weights.items()}

    @torch.no_grad()
    def count(self, find: Callable[[str], Any]) -> _Counted:
        """Count the zeros of the weights that are found by their names."""
        elements = zeros = asked = 0
        share = 0.0
        for name, (wanted, target) in self.weights.items():
            weight = find(name)
            if isinstance(weight, Tensor):
                elements += weight.numel()
                zeros += weight.numel() - int(torch.count_nonzero(weight))
                asked += wanted
                share += target * weight.numel()
        return _Counted(elements, zeros, asked, share / max(elements, 1))


def _weight_of(model: pl.LightningModule, name: str) -> Any:
    """Return a weight as the forward pass uses it; None where the module has none of that name."""
    owner, _, parameter = name.rpartition(".")
    try:
        return getattr(model.get_submodule(owner), parameter)
    except AttributeError:
        return None


def _best_of(trainer: pl.Trainer, asked: _Asked) -> tuple[_Counted | None, str]:
    """Count the zeros of the trainer's best checkpoint; return them with a clause on them."""
    checkpoints = callbacks_of(trainer, "ModelCheckpoint")
    monitored = [one for one in checkpoints if one.monitor is not None]
    path = next((one.best_model_path for one in monitored if one.best_model_path), None)
    if path is None:
        return None, "; no best checkpoint was chosen" if monitored else ""
    try:
        state = load_without_foreign(path, mmap=True)
        weights = plain_state_dict(state["state_dict"])
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return None, f"; best checkpoint {path} cannot be read safely ({reason})"
    if absent := [name for name in asked.weights if name not in weights]:
        return None, f"; best checkpoint {path} has no weight {absent[0]!r}"
    best = asked.count(weights.get)
    return best, f"; best checkpoint {path} has {best.sparsity:.4f}"
