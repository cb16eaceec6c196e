"""Config of any app: what resolves, what tells experiments apart, and what does not."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.any_config import (
    differences,
    hash_of,
    identity_of,
    plain_config,
    settled_config,
)
from tests.plugin.conftest import Job
from tests.plugin.conftest import job as job  # the fixture


class Color(Enum):
    RED = 1


@pytest.fixture
def hydra(job: Job) -> Iterator[Any]:
    config = "name: ${now:%f}\nout: ${hydra:runtime.output_dir}/x\nof: ${hydra:job.name}\n"
    with job(config=config) as composed:
        task = composed.copy()
        OmegaConf.set_struct(task, False)
        OmegaConf.set_readonly(task, False)
        del task["hydra"]
        yield task, HydraConfig.get()


def test_values_of_any_kind_become_plain() -> None:
    cfg = OmegaConf.create(
        {
            "color": Color.RED,
            "path": Path("a/b"),
            "list": [1, "${n}", "???"],
            "n": 2,
            "lost": "${nowhere}",
            "bytes": b"\x01",
            "none": None,
        }
    )
    assert plain_config(cfg) == {
        "color": "RED",
        "path": "a/b",
        "list": [1, 2, "???"],
        "n": 2,
        "lost": "${nowhere}",
        "bytes": "01",
        "none": None,
    }


def test_objects_of_a_resolver_count_by_their_class() -> None:
    OmegaConf.register_new_resolver("made", lambda: slice(1), replace=True)
    cfg = OmegaConf.create({"a": "${made:}"})
    try:
        assert plain_config(cfg) == {"a": "<builtins.slice slice(None, 1, None)>"}
    finally:
        OmegaConf.clear_resolver("made")


def test_time_and_directories_are_names_and_the_rest_is_as_hydra_says(
    hydra: tuple[DictConfig, Any],
) -> None:
    task, node = hydra
    before = task.out
    settled = settled_config(task, node)
    assert settled == {"name": "<now>", "out": "RUN_DIR/x", "of": node.job.name}
    # Afterwards it resolves as before.
    assert task.out == before != "RUN_DIR/x"
    assert task.name.isdecimal()


def test_resolvers_of_the_app_come_back(hydra: tuple[DictConfig, Any]) -> None:
    task, node = hydra
    OmegaConf.register_new_resolver("now", lambda *_: "its own", replace=True)
    try:
        assert settled_config(task, node)["name"] == "<now>"
        assert OmegaConf.create({"a": "${now:%Y}"}).a == "its own"
    finally:
        setup_globals()


def test_identities() -> None:
    large = 2**53
    assert identity_of({"seed": large}) != identity_of({"seed": large + 1})
    one = {"lr": 1, "model": {"width": 2}, "trainer": {"logger": "a", "max_epochs": 3}, "tags": "a"}
    other = {**one, "lr": 1.0, "trainer": {"logger": "b", "max_epochs": 3}, "tags": "b"}
    assert hash_of(identity_of(one)) == hash_of(identity_of(other))
    third = {**one, "model": {"width": 3}}
    assert hash_of(identity_of(one)) != hash_of(identity_of(third))
    assert differences(identity_of(one), identity_of(third)) == ["model.width: 2.0 -> 3.0"]
    assert identity_of(one, ["model", "!model.width"])["model.width"] == 2.0
