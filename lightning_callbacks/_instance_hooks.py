"""Hooks of one LightningModule, extended where Lightning has none for callbacks."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

__all__ = ["InstanceHooks"]


class InstanceHooks:
    """Runs an action before or after a hook of one module, until it is told to restore them."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def before(self, module: pl.LightningModule, name: str, action: Callable[..., None]) -> None:
        """Call ``action`` with the hook's arguments before the hook."""
        hook = getattr(module, name)

        def act_first(*args: Any) -> Any:
            action(*args)
            return hook(*args)

        self._replace(module, name, act_first)

    def after(self, module: pl.LightningModule, name: str, action: Callable[[], None]) -> None:
        """Call ``action`` after the hook."""
        hook = getattr(module, name)

        def act_last(*args: Any) -> Any:
            returned = hook(*args)
            action()
            return returned

        self._replace(module, name, act_last)

    def restore(self) -> None:
        """Give the module back the hooks that it had."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, module: pl.LightningModule, name: str, function: Callable[..., Any]) -> None:
        # functools.wraps would hide the function: Lightning looks through __wrapped__ to see
        # whether a hook is overridden.
        own = vars(module).get(name)
        setattr(module, name, function)
        undo = (
            (lambda: delattr(module, name)) if own is None else (lambda: setattr(module, name, own))
        )
        self._undo.append(undo)
