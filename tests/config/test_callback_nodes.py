"""Callbacks of a config that prune: one of them, no more."""

from typing import Any

import pytest

from coreai_opt.config.validation import find_problems
from tests.conftest import Compose

LIGHTNING = "pytorch_lightning.callbacks.ModelPruning"

SECOND = {
    "other": (LIGHTNING, "+callbacks.other.pruning_fn=l1_unstructured"),
    "more": ("lightning_callbacks.ScheduledPruning", "+callbacks.more.interval=epoch"),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_second_pruner_among_the_callbacks_is_refused(compose_config: Compose, name: str) -> None:
    target, more = SECOND[name]
    problems = find_problems(compose_config(f"+callbacks.{name}._target_={target}", more))
    assert str(next(one for one in problems if one.key.startswith("callbacks."))) == (
        f"callbacks.{name}._target_={target}: it would prune the model beside "
        f"callbacks.scheduled_pruning, and one of the two has to go; allowed: without "
        f"callbacks.{name}, or schedule=none"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule=none", f"+callbacks.other._target_={LIGHTNING}"],
        ["+callbacks.other._target_=lightning_callbacks.SparsityProgressBar"],
    ],
    ids=["the only one", "no pruner"],
)
def test_one_pruner_is_allowed(compose_config: Compose, overrides: list[Any]) -> None:
    assert find_problems(compose_config(*overrides)) == []


def test_zeros_are_not_kept_in_the_dense_control(compose_config: Compose) -> None:
    zeros = "callbacks.scheduled_pruning.masks_from=zeros"
    (problem,) = find_problems(compose_config("schedule=none", zeros))
    assert str(problem).startswith(f"{zeros}: schedule=none is the dense control, in which zeros")
    assert "allowed: schedule=constant" in str(problem)
    assert find_problems(compose_config("schedule=constant", zeros)) == []
