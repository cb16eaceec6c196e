"""What a sweep's jobs are composed of is what Hydra itself composes."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from coreai_opt.config.composing import command_context
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.sweep.job_configs import JobConfigs
from coreai_opt.sweep.sweeper import register_sweepers

# Each line is a job; what lines before it have left behind must not show.
JOBS = [
    ["power=2", "seed=3", "hydra.sweep.subdir='a b'"],
    ["power=3", "hydra.sweep.subdir='c'", "seed=3", "hydra.job.env_set.NAME='{}'"],
    ["schedule=constant", "begin_step=10", "+trainer.fast_dev_run=true"],
    ["optimizer.lr=0.5", "schedule=none", "model=convnet"],
    ["seed=7", "schedule=none", "model=convnet"],
    ["experiment=quick", "total_iters=7", "~callbacks.progress_bar", "experiment.x=1"],
    ["experiment=quick", "total_iters=7", "~callbacks.progress_bar"],
    ["model={_target_: my.Net}", "~schedule", "+data=digits"],
    ["hydra.job.env_copy=[HOME]", "hydra.job.chdir=true", "model.hidden=[8,8]"],
    ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=4", "power=1"],
    ["power=nothing", "seed=${power}"],
    ["seed=1", "seed=2"],
    [],
    ["power=2", "seed=3", "hydra.sweep.subdir='a b'"],
]
SWEEPS = {"here": (["hydra.sweep.dir=here"], JOBS), "named": (["hydra.job.name=named"], JOBS[:3])}


def composed(loader: ConfigLoaderImpl, sweep: Any, job: list[str]) -> Any:
    """What comes out, or the error that does."""
    try:
        config = loader.load_sweep_config(sweep, list(job))
    except HydraException as error:
        return type(error), str(error)
    return OmegaConf.to_yaml(config), config._get_flag("struct"), config._metadata.resolver_cache


@pytest.mark.parametrize(("of_hydra", "jobs"), SWEEPS.values(), ids=SWEEPS)
def test_jobs_are_composed_as_by_hydra(of_hydra: list[str], jobs: list[list[str]]) -> None:
    register_nodes()
    register_sweepers()
    with command_context(get_args_parser().parse_args([])) as name:
        stock: Any = GlobalHydra.instance().config_loader()
        ours = JobConfigs(stock)
        sweep = stock.load_configuration(name, of_hydra, RunMode.MULTIRUN)
        assert sweep.hydra.sweep.dir  # whose moment is that of the jobs as well
        for job in jobs:
            expected = composed(stock, sweep, job)
            for attempt in ("first", "again"):
                assert composed(ours, sweep, job) == expected, (job, attempt)


def test_options_are_found_where_hydra_is_told_to_look(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text("number: 1\n")
    register_nodes()
    with command_context(get_args_parser().parse_args([])) as name:
        stock: Any = GlobalHydra.instance().config_loader()
        of_hydra = [f"hydra.searchpath=['file://{tmp_path}']"]
        sweep = stock.load_configuration(name, of_hydra, RunMode.MULTIRUN)
        job = ["+mine=one", "seed=2"]
        ours = composed(JobConfigs(stock), sweep, job)
    assert ours == composed(stock, sweep, job)
    assert "number: 1" in ours[0]


def test_what_was_composed_stays_here() -> None:
    register_nodes()
    with command_context(get_args_parser().parse_args([])) as name:
        stock: Any = GlobalHydra.instance().config_loader()
        ours = JobConfigs(stock)
        sweep = stock.load_configuration(name, [], RunMode.MULTIRUN)
        first = ours.load_sweep_config(sweep, ["seed=2"])
        kept = OmegaConf.to_yaml(first)
        first.power = 17
        assert composed(ours, sweep, ["seed=2"])[0] == kept
        sent = pickle.loads(pickle.dumps(ours))
        assert sent._bases == {}
        assert composed(sent, sweep, ["seed=2"])[0] == kept


def test_few_choices_of_options_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreai_opt.sweep.job_configs.MOST_KEPT", 1)
    register_nodes()
    with command_context(get_args_parser().parse_args([])) as name:
        stock: Any = GlobalHydra.instance().config_loader()
        ours = JobConfigs(stock)
        sweep = stock.load_configuration(name, [], RunMode.MULTIRUN)
        for option in ("cosine", "constant", "cosine"):
            target = ours.load_sweep_config(sweep, [f"schedule={option}"]).schedule._target_
            assert option in target.lower()
            assert len(ours._bases) == 1
