"""Names in a config: of modules (regular expressions), of types (classes or dotted paths)."""

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from coreai_opt.pruning.config._patterns import patterns_of


def self_and_ancestors(name: str) -> list[str]:
    """Return a module's name and those of the modules around it, from the inside out.

    Example:
        >>> self_and_ancestors("body.0.conv")
        ['body.0.conv', 'body.0', 'body']
    """
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def check_patterns(patterns: Iterable[str]) -> None:
    """Raise a ValueError for the first name that is no regular expression."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


def first_match(patterns: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first pattern that matches one of the names as a whole, None for none."""
    return patterns_of(tuple(patterns)).first(*names)


def type_name(kind: type | str) -> str:
    """Return the dotted path of a class, the public one for those of ``torch.nn``.

    Example:
        >>> type_name(dict), type_name("my.module.Net")
        ('builtins.dict', 'my.module.Net')
    """
    if isinstance(kind, str):
        return kind
    public = getattr(sys.modules.get("torch.nn"), kind.__name__, None)
    return (
        f"torch.nn.{kind.__name__}" if public is kind else f"{kind.__module__}.{kind.__qualname__}"
    )


def class_named(path: str) -> type | None:
    """Return the class with a dotted path when its package is loaded or is torch, else None."""
    module, _, name = path.rpartition(".")
    package = module.partition(".")[0]
    if not module or (package != "torch" and package not in sys.modules):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def names_type(key: type | str, kind: type) -> bool:
    """Return whether a key of a config, a class or a dotted path, means this very class."""
    if isinstance(key, type):
        return key is kind
    return key == f"{kind.__module__}.{kind.__qualname__}" or class_named(key) is kind


def by_type(configs: Mapping[Any, Any], kind: type) -> Any:
    """Return the key whose class is nearest in the ancestry of a class, None for none."""
    for ancestor in kind.__mro__:
        for key in configs:
            if names_type(key, ancestor):
                return key
    return None
