"""Plain checkpoints: those of MagnitudePruner or torch's prune, loaded as the plain model's."""

from collections.abc import Mapping
from typing import Any

from coreai_opt.pruning import masks_of_state_dict, plain_optimizer_state, plain_state_dict
from coreai_opt.pruning.spec.mask_state import STEP_COUNT
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning.roots import is_at_least

# Where Lightning keeps weights: a WeightAveraging callback has the average in the first.
WEIGHTS = ("state_dict", "current_model_state")

# The version of Lightning that began to load the states of callbacks for a test as well.
TELLS_WHEN_EVALUATING = "2.5"


class PlainCheckpoints:
    """Makes a checkpoint that is being loaded one of the plain model, masked.

    Its masks and clock become the state of the callback that prunes, under its key; its optimizers
    go by the order of the plain model's parameters. One that knows no such masks stays as it is.
    """

    def __init__(self, state_key: str) -> None:
        self._state_key = state_key
        self._former: Mapping[str, Any] | None = None  # weights, as they were loaded
        self._checkpoint: dict[str, Any] = {}

    def patch_loading(
        self,
        callback: pl.Callback,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        hooks: MethodPatches,
        evaluates: bool,
    ) -> None:
        """Look at the checkpoint before the strategy gives its weights to the module.

        The callback that prunes is told of it here, where Lightning tells callbacks nothing: of one
        that is loaded for anything but a fit (``evaluates``), in older versions.
        """
        is_told = not evaluates or is_at_least(trainer, TELLS_WHEN_EVALUATING)

        def look(checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            self._make_plain(checkpoint)
            if is_told and "callbacks" in checkpoint:
                return
            callback.on_load_checkpoint(trainer, pl_module, checkpoint)
            if state := checkpoint.get("callbacks", {}).get(self._state_key):
                callback.load_state_dict(state)

        hooks.before(trainer.strategy, "load_model_state_dict", look)

    def order_optimizers(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the states of the optimizers in order, before Lightning loads them."""
        states = self._checkpoint.get("optimizer_states", [])
        if self._former is not None and len(states) == len(trainer.optimizers):
            self._checkpoint["optimizer_states"] = [
                plain_optimizer_state(state, self._former, pl_module, optimizer)
                for state, optimizer in zip(states, trainer.optimizers, strict=True)
            ]
        self._former, self._checkpoint = None, {}

    def _make_plain(self, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint[WEIGHTS[-1] if WEIGHTS[-1] in checkpoint else WEIGHTS[0]]
        plain = plain_state_dict(weights)
        if plain.keys() == weights.keys():
            return
        if (masks := masks_of_state_dict(weights)) is not None:
            self._give(checkpoint, masks)
        self._former, self._checkpoint = weights, checkpoint
        for name in WEIGHTS:
            if name in checkpoint:
                checkpoint[name] = plain_state_dict(checkpoint[name])

    def _give(self, checkpoint: dict[str, Any], masks: dict[str, Any]) -> None:
        """Give masks and clock to the callback."""
        steps = [masks[STEP_COUNT]] * len(checkpoint.get("optimizer_states", []))
        own = {"clock": masks[STEP_COUNT], "optimizer_steps": steps, "beginning": [0, 0, 0]}
        callbacks = checkpoint.setdefault("callbacks", {})
        callbacks[self._state_key] = own | callbacks.get(self._state_key, {}) | {"masks": masks}
