"""Points are filled into composed configs, and read in parts: the same as reading a copy of all."""

from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from coreai_opt.config.composing import command_context
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.config.unchanged_nodes import UnchangedNodes
from coreai_opt.config.validation import Reading
from coreai_opt.sweep.axes import Assignment, parse
from coreai_opt.sweep.composing import Composer, _as_job

# Each line is a point; what lines before it have left behind must not show.
POINTS = [
    ["power=2", "seed=3"],
    ["power=3", "seed=4"],
    ["power=3"],
    ["seed=5"],
    [],
    ["data.batch_size=32", "trainer.max_epochs=5"],
    ["data.batch_size=64", "trainer.max_epochs=6"],
    ["paths.output_root=a", "+model.extra=1"],
    ["paths.output_root=b", "+model.extra=2"],
    ["paths.sweep_root=a b", "objective.mode=min"],
    ["paths.sweep_root=c", "objective.mode=max"],
    ["~callbacks.sparsity_monitor", "pruning.allocation=global"],
    ["+new.node=1", "target_sparsity=0.5"],
    ["+new.node=2", "target_sparsity=0.8"],
    ["init_from=${paths.run_dir}/x", "checkpoint.keep=${seed}", "seed=7"],
    ["init_from=${paths.run_dir}/x", "checkpoint.keep=${seed}", "seed=8"],
    ["objective.name=${oc.env:HOME}", "seed=1"],
    ["model=mlp", "seed=2"],
    ["schedule=none", "seed=2"],
    ["schedule=none", "seed=3", "target_sparsity=0.5"],
    ["schedule=none", "target_sparsity=0.6", "seed=3"],
    ["interval=epoch", "schedule.power=${seed}", "seed=9"],
    ["interval=percent", "schedule.power=${seed}", "seed=8"],
    ["trainer.max_epochs=nothing", "power=-1"],
    ["power=2", "seed=3"],
]


def test_points_are_read_as_if_each_were_alone() -> None:
    register_nodes()
    with command_context(get_args_parser().parse_args([])) as name:
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(loader, name, [])
        for texts in POINTS:
            assignments = [Assignment(str(one.input_line), one) for one in parse(texts, loader)]
            options = [one for one in assignments if composer.is_group(one)]
            values = [one for one in assignments if not composer.is_group(one)]
            try:
                alone = read_alone(composer, options, values)
            except Exception:
                with pytest.raises(Exception, match=r"."):
                    composer.read(options, values)
                continue
            for attempt in ("first", "again"):
                reading = composer.read(options, values)
                assert reading.values == alone.values, (texts, attempt)
                assert list(reading.values) == list(alone.values), (texts, attempt)
                assert reading.names == alone.names, (texts, attempt)
                assert reading.problems == alone.problems, (texts, attempt)


def test_what_is_computed_otherwise_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"a": {"home": "${oc.env:PLACE}"}, "b": {"up": "${..seed}", "own": "${.up}"}, "c": "x"}
    lists = {"d": [{"deep": "${e.far}"}], "e": {"far": "${seed}"}, "f": {"kept": "${c}"}}
    cfg = OmegaConf.create({"seed": 1, **nodes, **lists})
    constants = UnchangedNodes(frozenset({"seed"}))
    monkeypatch.setenv("PLACE", "here")
    first = Reading(cfg, constants)
    cfg.seed = 2
    monkeypatch.setenv("PLACE", "there")
    second = Reading(cfg, constants)
    assert second.values == Reading(cfg).values
    assert second.values["f"] is first.values["f"]
    assert second.values["b"] == {"up": 2, "own": 2}


def read_alone(composer: Any, options: list[Assignment], values: list[Assignment]) -> Reading:
    base = composer._base(options)
    task = base.task.copy()
    ConfigLoaderImpl._apply_overrides_to_config([one.override for one in values], task)
    with _as_job(base.hydra):
        return Reading(task)
