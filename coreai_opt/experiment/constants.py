"""Which parts of a config stay as they are when some of its keys are given other values."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig

__all__ = ["Constants"]

Path = tuple[str | int, ...]

REFERENCE = re.compile(r"\$\{([\w.]+)\}")

# What Hydra says of the job is the same for all points that are composed together.
OF_THE_JOB = re.compile(r"\$\{hydra:[\w.]+\}")


class Constants:
    """What has been read of a config before and cannot depend on the keys that change.

    A part is kept where neither it nor anything that it refers to, at any remove, lies below one of
    the keys. What is computed in any other way than by ``${key}`` is read anew each time.

    Args:
        changing: keys at the root.
    """

    def __init__(self, changing: frozenset[str]) -> None:
        self._changing = changing
        self._is_kept: dict[Path, bool] = {}
        self._known: dict[Path, tuple[Any, dict[Path, str]]] = {}

    def get(self, path: Path) -> tuple[Any, dict[Path, str]] | None:
        """Return the value at a path and the names below it, None where it is to be read."""
        return self._known.get(path)

    def keep(self, path: Path, node: Any, value: Any, names: dict[Path, str]) -> None:
        """Remember what was read at a path, if it stays so.

        Args:
            path: where.
            node: what stands there.
            value: what was read.
            names: the keys that values at and below it were taken from.
        """
        if path not in self._is_kept:
            self._is_kept[path] = path[0] not in self._changing and self._is_constant(node)
        if self._is_kept[path]:
            below = {key: name for key, name in names.items() if key[: len(path)] == path}
            self._known[path] = (value, below)

    def _is_constant(self, node: Any) -> bool:
        seen: set[str] = set()
        still = [*_references(node)]
        while still:
            key = still.pop()
            if key is None or key in self._changing:
                return False
            if key not in seen:
                seen.add(key)
                still += _references(node._get_root()._get_node(key))
        return True


def _references(node: Any) -> Iterator[str | None]:
    """Yield the root keys that a node refers to, None for what cannot be told."""
    if node is None:
        return
    if node._is_interpolation():
        text = OF_THE_JOB.sub("", str(node._value()))
        keys = REFERENCE.findall(text)
        if "${" in REFERENCE.sub("", text) or any(key.startswith(".") for key in keys):
            yield None
        yield from (key.partition(".")[0] for key in keys)
    elif isinstance(node, DictConfig | ListConfig) and not (node._is_none() or node._is_missing()):
        children: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
        for child in children:
            yield from _references(node._get_node(child))
