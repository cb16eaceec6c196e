"""A group that is taken away: one thing less, or one sentence before anything is made."""

import pytest

from coreai_opt.config.validation import find_problems
from tests.conftest import Compose

OWN = ("~model", "+model._target_=tests.helpers.building.OwnModule")

PROBLEMS: dict[tuple[str, ...], list[str]] = {
    ("~optimizer",): [
        "optimizer is not there, and coreai_opt.models.MLP has none of its own; "
        "allowed: optimizer=adamw, sgd"
    ],
    ("~optimizer", *OWN): [],
    ("~model",): [
        "model is not there, and every run needs it; "
        "allowed: model=convnet, mlp, resnet, transformer"
    ],
    ("~trainer", "~data"): [
        "data is not there, and every run needs it; "
        "allowed: data=cifar10, digits, mnist, mnist_subset",
        "trainer is not there, and every run needs it; allowed: trainer=cpu, ddp, default, gpu",
    ],
    ("~checkpoint",): [
        "checkpoint is not there, and every run needs it; allowed: checkpoint.every_n_steps=VALUE, "
        "checkpoint.every_n_epochs=VALUE, checkpoint.keep=VALUE"
    ],
    ("~paths",): ["paths is not there, and every run needs it; allowed: paths=default"],
    ("~schedule",): [
        "schedule is not there, and callbacks.scheduled_pruning.schedule refers to it; "
        "allowed: schedule=constant, cosine, cubic, exponential, linear, multistep, none, poly"
    ],
    ("~pruning",): [
        "pruning is not there, and callbacks.scheduled_pruning.config refers to it; "
        "allowed: pruning=block, channel, magnitude, n_m"
    ],
    ("~callbacks",): [
        "the schedule would not be applied: no callback takes it; "
        "allowed: callbacks=[default,...], or schedule=none"
    ],
    ("~schedule", "~pruning", "~callbacks", "~logger", "~identity", "~sweep"): [],
    ("~seed", "~power"): [
        "seed is not there, and every run needs it; allowed: seed=VALUE",
        "power is not there, and schedule.power refers to it; allowed: power=VALUE",
    ],
    ("~objective.name",): [
        "objective.name is not there, and every run needs it; allowed: objective.name=VALUE"
    ],
    ("~optimizer", "+optimizer={lr: 0.1}"): [
        "optimizer has no _target_, which names a class; "
        "allowed: optimizer=adamw, sgd, or +optimizer._target_=my.Class"
    ],
}


@pytest.mark.parametrize(("overrides", "sentences"), PROBLEMS.items(), ids=str)
def test_what_is_missing_is_said_once(
    compose_config: Compose, overrides: tuple[str, ...], sentences: list[str]
) -> None:
    assert [str(one) for one in find_problems(compose_config(*overrides))] == sentences
