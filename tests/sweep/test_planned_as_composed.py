"""The config of each point is what Hydra composes of that point alone, and so is its hash."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import OmegaConf

from coreai_opt.config.composing import task_config
from coreai_opt.config.identity import config_hash
from coreai_opt.sweep.plan import Plan, Point
from tests.helpers.searching import planned

DEEP = "pruning.module_name_configs"
LAYER = "{network.layers.1: {op_state_spec: {weight: {target_sparsity: 0.5}}}}"

QUICK: dict[str, list[str]] = {
    "dicts in the place of null": [f"{DEEP}=null,{{network.layers.1: null}},{{a: null, b: null}}"],
    "keys of a dict": [f"{DEEP}={{a: null}}", f"+{DEEP}.b=null,{{op_state_spec: null}}"],
    "a node below a changed one": ["+x={a: {b: 1}},{a: {b: 2}}", "+new.extra=${x.a}"],
}

MORE: dict[str, list[str]] = {
    "dicts in the place of dicts": [
        "optimizer.lr_schedule={warmup_steps: 3},{warmup_steps: 4, _partial_: false},null"
    ],
    "a dict against null, further down": [f"{DEEP}={LAYER},null,{{network.layers.3: null}}"],
    "lists": ["model.hidden=[300,100],[50],[50,50,50]", "model.input_shape=[1,28,28],[1,8,8]"],
    "a dict for a group": ["optimizer={lr: 0.2},{lr: 0.3, nesterov: true}", "optimizer.momentum=0"],
    "keys deep inside": [f"{DEEP}={LAYER}", f"+{DEEP}.other.op_state_spec=null,{{weight: null}}"],
    "a key that another override has made": ["+x={a: 1},{a: 2}", "x.a=3,4", "++x.c=[1,2],{d: 1}"],
    "where only some points have it": ["+x={a: {b: 1}},{c: 1}", "x.a.b=5,6"],
    "forced": ["++trainer.barebones=false,null", f"++{DEEP}.a=null,{{op_state_spec: null}}"],
    "paired": [
        f"{DEEP}=null,{{a: null}},{{b: null}}",
        "model.hidden=[5],[6],[7]",
        f"sweep.zip=[{DEEP},model.hidden]",
    ],
    "a whole node by its name": ["+new.extra=${pruning},${data},${optimizer.lr_schedule}"],
    "a name behind a name": [
        "+x=${data},${trainer}",
        "+y=${x}",
        "+new.extra={z: ${y}}",
    ],
    "options, and values below them": ["data=digits,mnist_subset", f"{DEEP}=null,{{a: null}}"],
    "taken away": [f"{DEEP}={{a: null}},{{b: null}}", "~callbacks.sparsity_monitor"],
}


def composed(loader: ConfigLoader, overrides: list[str]) -> dict[str, Any]:
    """Compose as a job of Hydra's does."""
    whole = loader.load_configuration("config", overrides, RunMode.RUN)
    config: Any = OmegaConf.to_container(task_config(whole, "RUN_DIR"), resolve=True)
    return dict(config)


def agree(loader: ConfigLoader, points: list[Point], *besides: str) -> None:
    assert points
    for point in points:
        alone = composed(loader, [*besides, *point.overrides])
        assert json.dumps(point.config, default=str) == json.dumps(alone, default=str)
        assert point.config_hash == config_hash(alone), point.overrides


def of_grid(plan: Callable[..., Plan], overrides: list[str]) -> list[Point]:
    return list(plan(*overrides).points)


@pytest.mark.parametrize("overrides", QUICK.values(), ids=QUICK)
def test_points_of_a_grid(plan: Callable[..., Plan], overrides: list[str], loader: Any) -> None:
    points = of_grid(plan, overrides)
    assert len({point.config_hash for point in points}) == len(points) > 1
    agree(loader, points)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", MORE.values(), ids=MORE)
def test_more_points(plan: Callable[..., Plan], overrides: list[str], loader: Any) -> None:
    agree(loader, of_grid(plan, overrides))


SEARCHES: dict[str, list[str]] = {
    "a choice of dicts": [f"{DEEP}=choice({{network.layers.1: null}},{{a: null}})"],
    "a choice of lists": ["model.hidden=choice([300,100],[50])", "seed=range(1,3)"],
    "a key deep inside": [
        f"{DEEP}={{one: {{op_state_spec: {{weight: {{target_sparsity: 0.5}}}}}}}}",
        f"{DEEP}.one.op_state_spec.weight.target_sparsity=interval(0.1,0.5)",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", SEARCHES.values(), ids=SEARCHES)
def test_points_of_a_search(tmp_path: Path, overrides: list[str], loader: ConfigLoader) -> None:
    root = f"paths.sweep_root='{tmp_path}'"
    with planned(tmp_path, *overrides) as run:
        points = [run.space.point(params) for params in run.space._corners()]
        agree(loader, points, root)
