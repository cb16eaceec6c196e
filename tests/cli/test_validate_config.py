"""What is checked before a run, and before a sweeper that is not ours begins."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict, read_write

from coreai_opt.cli.validate_config import ValidateConfig
from coreai_opt.config.composing import task_config
from coreai_opt.config.errors import ConfigError
from coreai_opt.config.hydra_internals import writable
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.config.validation import resolve
from coreai_opt.training.build import build
from lightning_callbacks import ScheduledPruning


def composed(*overrides: str) -> DictConfig:
    """Return what Hydra hands over: lists of values are in no config."""
    register_nodes()
    fixed = [one for one in overrides if "," not in one]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", fixed, return_hydra_config=True)
    with read_write(cfg), open_dict(cfg):
        cfg.hydra.job.config_name = "config"
        cfg.hydra.overrides.task = list(overrides)
        cfg.hydra.sweeper = {"_target_": "hydra_plugins.theirs.TheirSweeper"}
    return cfg


def check(*overrides: str) -> None:
    cfg = composed(*overrides)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        ValidateConfig().on_multirun_start(cfg)


def test_the_first_point_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    check("power=1,2", "sweep_name=mine")
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit, match="1"):
        check("power=-1,2", "sweep_name=mine")
    assert capsys.readouterr().err.startswith("error: power=-1: should be greater than 0")


def test_a_sweep_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        check("power=1,2")
    assert "give sweep_name=NAME" in capsys.readouterr().err


def test_a_sweep_goes_on_with_no_single_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        check("power=1,2", "sweep_name=mine", "resume=outputs")
    assert "a sweep has many runs; allowed: auto or never" in capsys.readouterr().err


def test_the_run_takes_the_validated_config_and_its_schedule_once(tmp_path: Path) -> None:
    cfg = composed(f"hydra.run.dir={tmp_path / 'run'}", "power=2")
    schedules = []
    for _ in range(2):
        ValidateConfig().on_run_start(cfg)
        resolved = resolve(task_config(cfg, str(cfg.hydra.run.dir)))
        trainer = build(resolved.values, [], True, resolved.schedule).trainer
        (pruning,) = (one for one in trainer.callbacks if isinstance(one, ScheduledPruning))  # type: ignore[attr-defined]
        (config,) = pruning.config.module_configs()
        assert config.sparsity_schedule is resolved.schedule is not None
        schedules += [resolved.schedule, resolve(task_config(cfg, str(cfg.hydra.run.dir))).schedule]
    assert len(set(map(id, schedules))) == 4
    ValidateConfig().on_run_start(cfg)
    with writable(cfg):
        cfg.power = -1
    with pytest.raises(ConfigError, match="power=-1"):
        resolve(task_config(cfg, str(cfg.hydra.run.dir))).checked()
