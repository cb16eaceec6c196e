"""Registry of subclasses by string keys, for schedules, schemes and criteria."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

LISTED = 40  # names that a message lists; the nearest is looked for among all

T = TypeVar("T", bound=type)


def nearest(name: str, allowed: list[str]) -> str:
    """Return a clause with the allowed names, and the nearest one if it is near."""
    match = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {match[0]!r}?" if match else ""
    listed = ", ".join(allowed[:LISTED])
    more = f" and {len(allowed) - LISTED} more" if len(allowed) > LISTED else ""
    return f"allowed: {listed}{more}{hint}"


class Registry:
    """Mixin: a class that inherits from it directly owns one registry for all its subclasses.

    Attributes:
        REGISTRY: key -> class; a key that is deleted from it is free again.
        RESERVED: key that nothing is to be registered under by us -> the sentence that says why.
    """

    RESERVED: ClassVar[Mapping[str, str]] = {}

    REGISTRY: ClassVar[dict[str, type[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Registry in cls.__bases__:
            cls.REGISTRY = {}

    @classmethod
    def register(cls, key: str) -> Callable[[T], T]:
        """Register the decorated subclass under ``key``.

        Raises:
            ValueError: the key is taken by another class.
        """

        def decorate(subclass: T) -> T:
            taken = cls.REGISTRY.get(key)
            if taken is not None:
                raise ValueError(f"{key!r} is already registered, for {taken.__qualname__}")
            cls.REGISTRY[key] = subclass
            return subclass

        return decorate

    @classmethod
    def list_registry_keys(cls) -> list[str]:
        """Return the registered keys in the order of registration."""
        return list(cls.REGISTRY)

    @classmethod
    def list_registry_values(cls) -> list[type[Self]]:
        """Return the registered classes in the order of registration."""
        return list(cls.REGISTRY.values())

    @classmethod
    def get_class(cls, key: str) -> type[Self]:
        """Return the class registered under ``key``, or the one at a dotted path.

        Raises:
            ValueError: nothing is registered under it; the message lists what is. Or nothing can be
                imported from the path, or no such class.
        """
        if isinstance(key, str):
            if key in cls.REGISTRY:
                return cls.REGISTRY[key]
            if "." in key:
                return cls._at(key)
            if key in cls.RESERVED:
                raise ValueError(cls.RESERVED[key])
        raise ValueError(
            f"no {cls.__name__} is registered as {key!r}; "
            f"{nearest(str(key), cls.list_registry_keys())}"
        )

    @classmethod
    def _at(cls, path: str) -> type[Self]:
        module, _, name = path.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path!r} cannot be imported: {error}") from error
        if not (isinstance(found, type) and issubclass(found, cls)):
            keys = ", ".join(cls.list_registry_keys())
            raise ValueError(
                f"{path!r} is no {cls.__name__}; allowed: {keys}, or the dotted path of a subclass"
            )
        return found

    @classmethod
    def maybe_build_from_dict(cls, value: Self | Mapping[str, Any]) -> Self:
        """Build an instance from ``{"type": key, **fields}``; hand a ready instance back unchanged.

        The key is one of the registry, or the dotted path of a class.

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
        return next((key for key, known in cls.REGISTRY.items() if known is cls), None)
