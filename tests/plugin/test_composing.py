"""What the served options put into the config of an app that knows nothing of them."""

import json
import pickle
import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from coreai_opt.plugin.options import PATTERNS, SCHEDULES, knobs_of, option
from coreai_opt.pruning.config import MagnitudePrunerConfig
from tests.conftest import ROOT
from tests.plugin.conftest import Job, MakeApp, Said

POLY = {
    "schedule": "poly",
    "target_sparsity": 0.9,
    "interval": "percent",
    "power": 3.0,
    "total_iters": 60,
    "begin_step": 10,
    "initial_sparsity": 0.0,
    "update_frequency": 1,
    "pattern": "unstructured",
    "n": None,
    "m": None,
    "axis": None,
    "block_shape": None,
    "allocation": "uniform",
    "criterion": "default",
    "allow_regrowth": True,
    "dense": [],
    "masks_from": "schedule",
    "init_from": None,
    "gate": True,
    "monitor": False,
}


def modules_of(said: Said) -> set[str]:
    (modules,) = said.told("MODULES")
    return set(modules)


@pytest.mark.parametrize("module", [False, True], ids=["a file", "python -m"])
def test_a_line_puts_all_knobs_under_one_key(app: MakeApp, module: bool) -> None:
    said = app()("+prune=poly", "prune.power=2", "prune.target_sparsity=0.8", module=module)
    assert said.config == {"lr": 0.1, "prune": {**POLY, "power": 2, "target_sparsity": 0.8}}
    assert not {"torch", "pytorch_lightning"} & modules_of(said)


def test_an_app_that_does_not_use_it_is_left_as_it_was(app: MakeApp) -> None:
    said = app()()
    assert said.config == {"lr": 0.1}
    ours = {name for name in modules_of(said) if name.startswith(("coreai_opt", "lightning_"))}
    assert ours == set()
    assert "hydra_plugins.hydra_coreai_opt" in modules_of(said)
    assert "pydantic" not in modules_of(said)


def test_one_group_is_listed(app: MakeApp) -> None:
    groups = dict(
        line.split(": ")
        for line in app(model__small="a: 1\n")("--help").out.splitlines()
        if re.match(r"\w+: \w", line) and not line.startswith("lr")
    )
    assert groups == {"model": "small", "prune": ", ".join(sorted(SCHEDULES))}


def test_an_app_may_choose_it_for_good(app: MakeApp) -> None:
    ask = app(config="defaults: [{prune: poly}, _self_]\nprune: {power: 2}\n")
    assert ask().config["prune"]["power"] == 2
    assert ask("prune=linear", "prune.total_iters=30").config["prune"]["total_iters"] == 30
    with_file = app(
        config="{}\n", experiment__a="# @package _global_\ndefaults: [/prune: cosine]\n"
    )
    assert with_file("+experiment=a").config["prune"]["schedule"] == "cosine"


@pytest.mark.parametrize(
    ("group", "schedule"),
    [
        *(("prune", schedule) for schedule in SCHEDULES),
        *((group, "poly") for group in ("coreai_prune", "prune_typed")),
    ],
)
def test_every_option_composes(job: Job, group: str, schedule: str) -> None:
    with job(f"+{group}={schedule}") as config:
        node = config.hydra.callbacks.prune
        knobs = OmegaConf.to_container(node if group == "prune_typed" else config[node.knobs])
        assert node["_target_"] == "coreai_opt.plugin.PruneJob"
        assert set(config) - {"hydra"} == ({group} if group != "prune_typed" else set())
        assert pickle.loads(pickle.dumps(config)) == config
    assert isinstance(knobs, dict)
    knobs.pop("_target_", None)
    own = knobs_of("schedule", schedule)
    assert knobs == {**{key: POLY[key] for key in POLY if key not in OF_POLY}, **own} | {
        "schedule": schedule
    }


OF_POLY = knobs_of("schedule", "poly")


def test_defaults_travel() -> None:
    ends = {
        name: knobs.get("begin_step", 0) + knobs.get("total_iters", 0)
        for name in SCHEDULES
        for knobs in [knobs_of("schedule", name)]
    }
    ramps = dict.fromkeys(("linear", "poly", "cubic", "cosine", "exponential"), 70)
    assert ends == ramps | {"none": 0, "constant": 10, "multistep": 0}
    assert knobs_of("schedule", "multistep")["milestones"] == [25, 40, 55, 70]


def test_the_options_are_those_of_our_own_tree() -> None:
    ours = {path.stem for path in (ROOT / "conf" / "schedule").glob("*.yaml")}
    assert set(SCHEDULES) == ours
    patterns = {path.stem for path in (ROOT / "conf" / "pruning").glob("*.yaml")}
    assert set(PATTERNS.values()) == patterns


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_prunes_as_ours_of_the_name(pattern: str, compose_config: Any, job: Job) -> None:
    from coreai_opt.plugin.asked import asked_of

    with job("+prune=poly", f"prune.pattern={pattern}", "prune.target_sparsity=0.75") as config:
        asked = asked_of(config.hydra)
    assert asked is not None
    ours = compose_config(f"pruning={PATTERNS[pattern]}", "target_sparsity=0.75").pruning
    plain: Any = OmegaConf.to_container(ours, resolve=True)
    del plain["_target_"]
    assert asked.config() == MagnitudePrunerConfig.model_validate(plain)


def test_a_served_option_is_plain_data() -> None:
    config, package = option("prune", "poly")
    assert package == "_global_"
    assert json.loads(json.dumps(OmegaConf.to_container(config)))["prune"] == POLY
