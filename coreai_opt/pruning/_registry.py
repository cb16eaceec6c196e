"""A registry of subclasses under string keys, shared by schedules, schemes and criteria."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

LISTED = 40  # names that a message lists; the nearest is looked for among all

T = TypeVar("T", bound=type)


def nearest(name: str, allowed: list[str]) -> str:
    """Return the part of a sentence that names what is allowed, and the nearest if one is near."""
    match = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {match[0]!r}?" if match else ""
    listed = ", ".join(allowed[:LISTED])
    more = f" and {len(allowed) - LISTED} more" if len(allowed) > LISTED else ""
    return f"allowed: {listed}{more}{hint}"


class Registry:
    """Mixin: a class that inherits from it directly owns one registry for all its subclasses."""

    _registry: ClassVar[dict[str, type[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Registry in cls.__bases__:
            cls._registry = {}

    @classmethod
    def register(cls, key: str) -> Callable[[T], T]:
        """Register the decorated subclass under ``key``.

        Raises:
            ValueError: the key is taken by another class.
        """

        def decorate(subclass: T) -> T:
            taken = cls._registry.get(key)
            if taken is not None:
                raise ValueError(f"{key!r} is already registered, for {taken.__qualname__}")
            cls._registry[key] = subclass
            return subclass

        return decorate

    @classmethod
    def list_registry_keys(cls) -> list[str]:
        """Return the registered keys in the order of registration."""
        return list(cls._registry)

    @classmethod
    def get_class(cls, key: str) -> type[Self]:
        """Return the class registered under ``key``.

        Raises:
            ValueError: nothing is registered under it; the message lists what is.
        """
        if not isinstance(key, str) or key not in cls._registry:
            raise ValueError(
                f"no {cls.__name__} is registered as {key!r}; "
                f"{nearest(str(key), cls.list_registry_keys())}"
            )
        return cls._registry[key]

    @classmethod
    def maybe_build_from_dict(cls, value: Self | Mapping[str, Any]) -> Self:
        """Build an instance from ``{"type": key, **fields}``; hand a ready instance back unchanged.

        Raises:
            ValueError: no ``type``, an unregistered one, or fields that the class refuses.
        """
        if not isinstance(value, Mapping):
            return value
        if "type" not in value:
            raise ValueError(
                f"a {cls.__name__} as a dict needs a 'type'; "
                f"allowed: {', '.join(cls.list_registry_keys())}"
            )
        fields = {name: field for name, field in value.items() if name != "type"}
        return cls.get_class(value["type"])(**fields)

    @classmethod
    def registry_key(cls) -> str | None:
        """Return the key that this very class is registered under, None when it is under none."""
        return next((key for key, known in cls._registry.items() if known is cls), None)
