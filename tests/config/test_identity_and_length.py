"""Which runs are one experiment, and how long a training is."""

import math
from typing import Any

import pytest
from omegaconf import OmegaConf

from coreai_opt.config.identity import config_hash, identity_config
from coreai_opt.config.training_length import planned_steps


def digest(compose_config: Any, *overrides: str) -> str:
    return config_hash(OmegaConf.to_container(compose_config(*overrides), resolve=True))


@pytest.mark.parametrize(
    "overrides",
    [
        ["power=3"],
        ["schedule.power=3.0"],
        ["data.num_workers=2"],
        ["logger=none"],
        ["paths.output_root=elsewhere"],
        ["trainer.enable_progress_bar=false"],
        ["callbacks.last_checkpoint=null"],
        ["callbacks.sparsity_monitor.every_n_steps=1"],
    ],
    ids=str,
)
def test_what_cannot_change_the_result_leaves_the_hash(
    compose_config: Any, overrides: list[str]
) -> None:
    assert digest(compose_config, *overrides) == digest(compose_config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["power=2"],
        ["seed=2"],
        ["schedule=none"],
        ["target_sparsity=0.8"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.accumulate_grad_batches=2"],
        ["trainer.devices=2"],
        ["data.split_seed=1"],
        ["interval=percent", "total_iters=50"],
        ["objective.name=val/loss"],
    ],
    ids=str,
)
def test_what_can_change_the_result_changes_the_hash(
    compose_config: Any, overrides: list[str]
) -> None:
    assert digest(compose_config, *overrides) != digest(compose_config)


def test_a_dense_control_is_the_same_run_whatever_it_would_have_been_pruned_to(
    compose_config: Any,
) -> None:
    one = digest(compose_config, "schedule=none", "target_sparsity=0.5")
    assert one == digest(compose_config, "schedule=none", "interval=epoch")


def test_identity_holds_no_path(compose_config: Any, tmp_path: Any) -> None:
    config = OmegaConf.to_container(compose_config(), resolve=True)
    assert isinstance(config, dict)
    assert str(tmp_path) not in str(identity_config(config))


PLANS = {
    (): 10 * math.ceil(3500 / 64),
    ("data.batch_size=500",): 10 * 7,
    ("trainer.accumulate_grad_batches=4",): 10 * math.ceil(55 / 4),
    ("trainer.max_steps=100",): 100,
    ("trainer.max_epochs=-1", "trainer.max_steps=77"): 77,
    ("trainer.limit_train_batches=10",): 100,
    ("trainer.limit_train_batches=0.5",): 10 * 27,
    ("trainer.devices=2",): 10 * math.ceil(1750 / 64),
    ("trainer.devices=auto",): None,
    ("trainer.max_epochs=-1",): None,
    ("+trainer.fast_dev_run=true",): None,
    ("data._target_=their.Data",): None,
    ("+callbacks.a._target_=pytorch_lightning.callbacks.BatchSizeFinder",): None,
    ("+callbacks.a._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler",): None,
}


@pytest.mark.parametrize(("overrides", "steps"), PLANS.items(), ids=str)
def test_planned_steps(compose_config: Any, overrides: tuple[str, ...], steps: int | None) -> None:
    config = OmegaConf.to_container(compose_config(*overrides), resolve=True)
    assert isinstance(config, dict)
    assert planned_steps({str(key): value for key, value in config.items()}) == steps


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.accumulate_grad_batches=4"],
        ["trainer.limit_train_batches=0.5"],
        ["trainer.max_steps=5", "total_iters=5"],
    ],
    ids=str,
)
def test_the_plan_is_what_the_training_does(
    quick_run: Any, compose_config: Any, overrides: list[str]
) -> None:
    record = quick_run("total_iters=2", *overrides)
    assert planned_steps(record["config"]) == record["training"]["steps"]
