"""Nodes of Hydra's ConfigStore that are made when a config asks for them.

A command composes with a third of the schemas. To make all of them, and to copy all of them once
for every config that is composed, takes longer than to read the config files.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf

__all__ = ["LazyNode", "store_lazily"]


class LazyNode(ConfigNode):
    """A node that is made when it is first read.

    Hydra gives away copies of what it stores, so that one node serves all.

    Args:
        name: the option's name, with ``.yaml``.
        group: the option's group.
        make: returns a structured config; pickled with the node.
        provider: who brings it.
    """

    def __init__(self, name: str, group: str, make: Callable[[], Any], provider: str) -> None:
        self.name, self.group, self.package, self.provider = name, group, None, provider
        self._make = make
        self._made: list[Any] = []

    @property
    def node(self) -> Any:
        """The structured config."""
        if not self._made:
            self._made.append(OmegaConf.structured(self._make()))
        return self._made[0]

    @node.setter
    def node(self, value: Any) -> None:
        # Set in a copy of the node, which Hydra makes as shallow as can be.
        self._made = [value]

    def __copy__(self) -> "LazyNode":
        copied = LazyNode.__new__(LazyNode)
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: Any) -> "LazyNode":
        return self

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "_made": []}


def store_lazily(group: str, name: str, make: Callable[[], Any], provider: str) -> None:
    """Put a node into Hydra's ConfigStore that is made when it is first read."""
    options = ConfigStore.instance().repo
    for part in group.split("/"):
        options = options.setdefault(part, {})
    options[f"{name}.yaml"] = LazyNode(f"{name}.yaml", group, make, provider)
