"""What validation says of a config: every problem, once, in the user's words."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.field_problems import described
from coreai_opt.config.schemas.settings import SGDSettings, TrainerSettings
from coreai_opt.config.validation import find_problems, hand_down, resolve
from coreai_opt.pruning.config import MagnitudePrunerConfig


def sentences(compose_config: Any, *overrides: str) -> list[str]:
    return [problem.sentence for problem in find_problems(compose_config(*overrides))]


BAD = {
    "checkpoint=null": "checkpoint=null: not a node; allowed: checkpoint.every_n_steps=VALUE",
    "objective=3": "objective=3: not a node; allowed: objective.name=VALUE, objective.mode=VALUE",
    "warmup=on": "warmup=on: should be 'auto' or 'off'; allowed: auto or off",
    "power=-1": "power=-1: should be greater than 0; allowed: exponent of the ramp, > 0",
    "power=abc": "power=abc: should be a valid number",
    "total_iters=0": "total_iters=0: should be greater than 0",
    "total_iters=10.5": "total_iters=10.5: should be a valid integer",
    "target_sparsity=1.5": "target_sparsity=1.5: should be less than or equal to 1",
    "initial_sparsity=-0.1": "initial_sparsity=-0.1: should be greater than or equal to 0",
    "update_frequency=0": "update_frequency=0: should be greater than or equal to 1",
    "data.batch_size=0": "data.batch_size=0: should be greater than or equal to 1",
    "interval=stp": "interval=stp: should be 'step', 'epoch' or 'percent'",
    "objective.mode=most": "objective.mode=most: should be 'min' or 'max'",
    "optimizer.lr=-1": "optimizer.lr=-1: should be greater than 0",
    "seed=-1": "seed=-1: should be greater than or equal to 0",
    "trainer.max_epochs=0": "trainer.max_epochs=0: trains nothing; allowed: passes over the data",
    "model.hidden=[0]": "model.hidden.0=0: should be greater than or equal to 1",
    "callbacks.sparsity_monitor.every_n_steps=0": "every_n_steps=0: should be greater than",
    "total_iters=100000": "ends after 100000 steps (it begins at 0) and the training has 550",
    "begin_step=500": "ends after 900 steps (it begins at 500) and the training has 550",
    "power=null": "power=None: should be a valid number",
    "trainer.limit_train_batches=foo": "limit_train_batches=foo: is neither a number of batches",
    "trainer.limit_train_batches=-1": "limit_train_batches=-1: is neither a number of batches",
    "trainer.limit_train_batches=0": "limit_train_batches=0: trains on nothing",
    "trainer.devices=0": "trainer.devices=0: trains on nothing",
    "~callbacks.scheduled_pruning": "the schedule would not be applied",
    "pruning.module_name_configs={x:{op_state_spec:{wieght:null}}}": "did you mean 'weight'",
    "model._target_=nowhere.Net": "there is no module 'nowhere'",
    "model._target_=Net": "model._target_=Net cannot be imported",
    "model._target_=coreai_opt.models.MPL": "did you mean 'MLP'?",
    "schedule._target_=coreai_opt.pruning.config.Polynomial": "has no 'Polynomial'",
    "data._target_=???": "data._target_ is not given; give data._target_=VALUE",
    r"pruning.module_name_configs={\(:null}": "'(' is no regular expression",
    "pruning.module_name_configs={head:{op_state_spec:{weight:{target_sparsity:2}}}}": "=2: should",
    "pruning.module_name_configs={head:{spec:1}}": "there is no such key",
    "model.num_classes=${nothing}": "model.num_classes cannot be read",
}


def test_an_unquoted_off_of_a_file_is_off(compose_config: Any) -> None:
    assert sentences(compose_config, "warmup=false", "trunk=false") == []


@pytest.mark.parametrize(("override", "sentence"), BAD.items(), ids=BAD.keys())
def test_a_bad_value_is_one_sentence(compose_config: Any, override: str, sentence: str) -> None:
    said = sentences(compose_config, override)
    assert len(said) == 1, said
    assert sentence in said[0]


MULTISTEP = ("schedule=multistep", "milestones=[10,20]", "levels=[0.5,1.0]")
BAD_SCHEDULES = [
    (("schedule=exponential", "rate=0"), "rate=0: should be greater than 0; allowed: exponent"),
    (("schedule=exponential", "rate=abc"), "rate=abc: should be a valid number"),
    (("schedule=exponential", "rate=inf"), "rate=inf: should be a finite number"),
    (
        ("schedule=cosine", "total_iters=551"),
        "total_iters=551: the ramp ends after 551 steps (it begins at 0)",
    ),
    (
        ("schedule=exponential", "begin_step=151"),
        "total_iters=400: the ramp ends after 551 steps (it begins at 151)",
    ),
    ((*MULTISTEP, "milestones=[20,10]"), "milestones: [20, 10] is not strictly increasing"),
    ((*MULTISTEP, "milestones=5"), "milestones=5: should be a valid tuple; allowed: list of"),
    ((*MULTISTEP, "milestones=[]"), "milestones: tuple should have at least 1 item"),
    ((*MULTISTEP, "milestones=[a,2]"), "milestones.0=a: should be a valid integer"),
    ((*MULTISTEP, "schedule.milestones=[1,-2]"), "schedule.milestones.1=-2: should be greater"),
    ((*MULTISTEP, "levels=[0.5]"), "levels: [0.5] should have as many values as there are"),
    ((*MULTISTEP, "levels=[0.5,0.9]"), "levels: [0.5, 0.9] ends at 0.9 and not at 1"),
    ((*MULTISTEP, "levels=[0.5,2]"), "levels.1=2: should be less than or equal to 1"),
    (
        (*MULTISTEP, "milestones=[20,551]"),
        "milestones=[20, 551]: the target is reached at milestone 551 and the training has 550 "
        "steps; allowed: a last milestone <= 550, or a longer training (trainer.max_epochs)",
    ),
    (
        (*MULTISTEP, "milestones=[10,11]", "interval=epoch"),
        "milestones=[10, 11]: the target is reached at milestone 11 and the training has 10 "
        "epochs; allowed: a last milestone <= 10",
    ),
    (
        (*MULTISTEP, "milestones=[99,101]", "interval=percent"),
        "milestones=[99, 101]: the target is reached at milestone 101 and the training has 100 "
        "percent; allowed: a last milestone <= 100",
    ),
]


@pytest.mark.parametrize(("overrides", "sentence"), BAD_SCHEDULES)
def test_a_bad_schedule_is_one_sentence(
    compose_config: Any, overrides: tuple[str, ...], sentence: str
) -> None:
    said = sentences(compose_config, *overrides)
    assert len(said) == 1, said
    assert said[0].startswith(sentence)


@pytest.mark.parametrize(
    "overrides",
    [
        ("schedule=cosine", "total_iters=550"),
        ("schedule=exponential", "rate=3", "begin_step=150"),
        (*MULTISTEP, "milestones=[20,550]"),
        (*MULTISTEP, "schedule.milestones=[1,2]", "schedule.levels=[0,1]"),
        (*MULTISTEP, "milestones=[20,30,9999]", "levels=[0.5,1,1]"),
        (*MULTISTEP, "milestones=[99,100]", "interval=percent"),
    ],
    ids=str,
)
def test_a_schedule_that_ends_with_the_training_is_valid(
    compose_config: Any, overrides: tuple[str, ...]
) -> None:
    assert sentences(compose_config, *overrides) == []


def test_adamw_takes_two_means(compose_config: Any) -> None:
    said = sentences(compose_config, "optimizer=adamw", "optimizer.betas=[0.9]")
    assert "optimizer.betas: list should have at least 2 items" in said[0]


def test_all_problems_are_said_at_once_and_each_once(compose_config: Any) -> None:
    bad = ("power=-1", "seed=-1", "data.batch_size=0", "optimizer.lr=0")
    said = sentences(compose_config, *bad)
    assert [text.partition("=")[0] for text in sorted(said)] == [
        "data.batch_size",
        "optimizer.lr",
        "power",
        "seed",
    ]


def test_a_knob_is_named_as_it_was_typed(compose_config: Any) -> None:
    assert sentences(compose_config, "schedule.power=-1")[0].startswith("schedule.power=-1:")
    assert sentences(compose_config, "power=-1")[0].startswith("power=-1:")


def test_a_checked_config_raises_with_the_problems(compose_config: Any) -> None:
    resolve(compose_config()).checked()
    with pytest.raises(ConfigError, match="power=-1") as caught:
        resolve(compose_config("power=-1", "seed=-1")).checked()
    assert [problem.key for problem in caught.value.problems] == ["seed", "power"]


@pytest.mark.parametrize("interval", ["epoch", "percent"])
def test_the_length_of_a_ramp_is_checked_in_its_unit(compose_config: Any, interval: str) -> None:
    length = {"epoch": 10, "percent": 100}[interval]
    assert not sentences(compose_config, f"interval={interval}", f"total_iters={length}")
    said = sentences(compose_config, f"interval={interval}", f"total_iters={length + 1}")
    assert f"the training has {length}" in said[0]


def test_a_missing_package_is_said_with_its_pip_command(compose_config: Any) -> None:
    pytest.importorskip("hydra")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        said = sentences(compose_config, "data=cifar10")
        assert "torchvision: pip install 'hydra-coreai-opt[vision]'" in said[0]
    else:
        pytest.skip("torchvision is installed: nothing is missing")


@pytest.mark.parametrize(
    ("model", "location", "text"),
    [
        (SGDSettings, ("lr",), "learning rate, > 0"),
        (TrainerSettings, ("unknown",), None),
        (
            MagnitudePrunerConfig,
            ("global_config", "op_state_spec", "weight", "target_sparsity"),
            "share of weights to prune, 0 to 1",
        ),
    ],
)
def test_descriptions_are_found_at_any_depth(
    model: type[BaseModel], location: tuple[str, ...], text: str | None
) -> None:
    assert described(model, location) == text


def test_a_directory_that_is_chosen_later_needs_no_validation(
    compose_config: Any, tmp_path: Path
) -> None:
    first, chosen = resolve(compose_config()), compose_config(run_dir=tmp_path / "chosen")
    hand_down(first, chosen)
    taken = resolve(chosen)
    assert taken.schedule is first.schedule
    assert taken.values["paths"]["run_dir"] == str(tmp_path / "chosen")
    assert resolve(chosen).schedule is not first.schedule
