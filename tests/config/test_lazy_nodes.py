"""Nodes of the ConfigStore that are made when they are read."""

import copy
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hydra.core.config_store import ConfigNode, ConfigStore

from coreai_opt.config.schemas.lazy_nodes import LazyNode, store_lazily


@dataclass
class Content:
    number: int = 3


made: list[str] = []


def make() -> type[Content]:
    made.append("once")
    return Content


@pytest.fixture
def stored() -> Iterator[LazyNode]:
    made.clear()
    store_lazily("a_group/below", "one", make, "us")
    yield ConfigStore.instance().repo["a_group"]["below"]["one.yaml"]
    del ConfigStore.instance().repo["a_group"]


def test_a_node_is_listed_unmade_and_made_once(stored: LazyNode) -> None:
    store = ConfigStore.instance()
    assert store.list("a_group/below") == ["one.yaml"]
    assert copy.deepcopy(store.repo)["a_group"]["below"]["one.yaml"] is stored
    assert made == []
    first = store.load("a_group/below/one.yaml")
    first.node.number = 5
    assert store.load("a_group/below/one.yaml").node == {"number": 3}
    assert made == ["once"]
    assert first.node == {"number": 5}


def test_a_node_is_what_hydra_would_have_stored(stored: LazyNode) -> None:
    store: Any = ConfigStore.instance()
    store.store(group="a_group/below", name="other", node=Content, provider="us")
    other = store.repo["a_group"]["below"]["other.yaml"]
    assert isinstance(stored, ConfigNode)
    for name in ("group", "package", "provider", "node"):
        assert getattr(stored, name) == getattr(other, name)
    assert stored.node._metadata.object_type is Content
    assert (stored.name, other.name) == ("one.yaml", "other.yaml")


def test_a_node_is_sent_unmade(stored: LazyNode) -> None:
    assert stored.node.number == 3
    sent = pickle.loads(pickle.dumps(stored))
    assert made == ["once"]
    assert sent.node.number == 3
    assert made == ["once", "once"]
