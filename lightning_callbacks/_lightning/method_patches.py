"""Method patches of single objects, for moments at which Lightning calls no callback."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from lightning_callbacks._lightning_internals import require_names


class MethodPatches:
    """Replaces methods of single objects until ``restore`` is called."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def before(self, owner: object, name: str, action: Callable[..., None]) -> None:
        """Call ``action`` with the hook's arguments before the hook."""
        hook = getattr(owner, name)

        def act_first(*args: Any, **kwargs: Any) -> Any:
            action(*args, **kwargs)
            return hook(*args, **kwargs)

        self._replace(owner, name, act_first)

    def after(self, owner: object, name: str, action: Callable[[], None]) -> None:
        """Call ``action`` after the hook."""
        hook = getattr(owner, name)

        def act_last(*args: Any, **kwargs: Any) -> Any:
            returned = hook(*args, **kwargs)
            action()
            return returned

        self._replace(owner, name, act_last)

    def around(
        self, owner: object, name: str, context: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Run the hook within ``context()``."""
        hook = getattr(owner, name)

        def act_around(*args: Any, **kwargs: Any) -> Any:
            with context():
                return hook(*args, **kwargs)

        self._replace(owner, name, act_around)

    def instead(self, owner: object, name: str, function: Callable[..., Any]) -> None:
        """Call ``function`` in the hook's place."""
        self._replace(owner, name, function)

    def restore(self) -> None:
        """Give all objects back the methods that they had."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, owner: object, name: str, function: Callable[..., Any]) -> None:
        # functools.wraps would hide the function: Lightning looks through __wrapped__ to see
        # whether a hook is overridden.
        require_names(owner, name)
        own = vars(owner).get(name)
        setattr(owner, name, function)
        undo = (
            (lambda: delattr(owner, name)) if own is None else (lambda: setattr(owner, name, own))
        )
        self._undo.append(undo)
