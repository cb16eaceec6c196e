"""Which parts of a config stay as they are when some of its keys are given other values."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig

__all__ = ["UnchangedNodes"]

Path = tuple[str | int, ...]

REFERENCE = re.compile(r"\$\{([\w.]+)\}")

# What Hydra says of the job is the same for all points that are composed together.
OF_THE_JOB = re.compile(r"\$\{hydra:[\w.]+\}")


class UnchangedNodes:
    """What has been read of a config before and cannot depend on the keys that change.

    A node is kept where neither it nor anything that it refers to, at any remove, lies below one of
    the keys. Where it stands counts, not where it is read: ``callbacks.config: ${pruning}`` is read
    below ``callbacks`` and stands below ``pruning``. What is computed in any other way than by
    ``${key}`` is read anew each time.

    Args:
        changing: keys at the root.
    """

    def __init__(self, changing: frozenset[str]) -> None:
        self._changing = changing
        # Of what does not change all points have the very same nodes. A node is kept with what was
        # read of it, so that no other one takes its id.
        self._is_kept: dict[int, tuple[Any, bool]] = {}
        self._known: dict[tuple[Path, int], tuple[Any, dict[Path, str]]] = {}

    def get(self, path: Path, node: Any) -> tuple[Any, dict[Path, str]] | None:
        """Return the value of a node and the names below it, None where it is to be read.

        Args:
            path: where it is read.
            node: what is read there.
        """
        return self._known.get((path, id(node)))

    def keep(self, path: Path, node: Any, value: Any, names: dict[Path, str]) -> None:
        """Remember what was read of a node, if it stays so.

        Args:
            path: where it was read.
            node: what was read there.
            value: what came out.
            names: the keys that values at and below it were taken from.
        """
        place = _place(node)
        if place is None or place in self._changing:
            return  # of another point it is another node
        if id(node) not in self._is_kept:
            self._is_kept[id(node)] = (node, self._is_constant(node))
        if self._is_kept[id(node)][1]:
            below = {key: name for key, name in names.items() if key[: len(path)] == path}
            self._known[path, id(node)] = (value, below)

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


def _place(node: Any) -> str | None:
    """Return the key at the root that a node stands below, None for one that was computed."""
    key: Any = None
    while node is not None and (parent := node._get_parent()) is not None:
        key = node._key()
        # What a resolver returns says that it stands where it was asked for, and does not.
        if not _is_child(parent, key, node):
            return None
        node = parent
    return None if key is None else str(key)


def _is_child(parent: Any, key: Any, node: Any) -> bool:
    if isinstance(parent, ListConfig):
        return isinstance(key, int) and key < len(parent) and parent._get_node(key) is node
    return key in parent._content and parent._content[key] is node


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
