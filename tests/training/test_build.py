"""Classes of a user's own in place of ours."""

import importlib
import re
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.validation import resolve
from coreai_opt.models import Classifier
from coreai_opt.pruning import MagnitudePruner
from coreai_opt.pruning.config.given import schedules_of
from coreai_opt.training.build import build as build_objects
from coreai_opt.training.build import locate
from lightning_callbacks import ScheduledPruning
from tests.helpers.building import build
from tests.helpers.quick_runs import QUICK_FOR_THEIRS


def test_a_module_of_logits_becomes_a_classifier(compose_config: Any, user_module: str) -> None:
    objects = build(compose_config(f"model._target_={user_module}.Net"), [], quiet=True)
    assert isinstance(objects.model, Classifier)
    assert type(objects.network).__name__ == "Net"


def test_a_lightning_module_is_used_as_it_is(compose_config: Any, user_module: str) -> None:
    objects = build(compose_config(f"model._target_={user_module}.Lit"), [], quiet=True)
    assert type(objects.model).__name__ == "Lit"
    assert objects.network is objects.model


def test_an_argument_of_theirs_is_passed_on(compose_config: Any, user_module: str) -> None:
    overrides = [f"model._target_={user_module}.Net", "+model.width=5"]
    network: Any = build(compose_config(*overrides), overrides, quiet=True).network
    assert network.stack[1].out_features == 5


@pytest.mark.parametrize("override", ["model.hidden=[3]", "+model.depth=3"])
def test_an_argument_that_they_do_not_take_is_an_error_when_the_user_gave_it(
    compose_config: Any, user_module: str, override: str
) -> None:
    overrides = [f"model._target_={user_module}.Net", override]
    name = override.partition("=")[0].partition(".")[2]
    with pytest.raises(ConfigError, match=f"unexpected keyword argument '{name}'"):
        build(compose_config(*overrides), overrides, quiet=True)


def test_a_data_module_of_theirs_trains(user_module: str, compose_config: Any) -> None:
    from coreai_opt.training.run import run

    base = [item for item in QUICK_FOR_THEIRS if not item.startswith("data.")]
    theirs = [f"data._target_={user_module}.Data", f"model._target_={user_module}.Lit"]
    value = run(compose_config(*base, *theirs, "objective.name=val/score", "total_iters=4"))
    assert value is not None
    assert 0 <= value <= 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("their_code.Nett", "their_code has no 'Nett'; allowed: .*; did you mean 'Net'"),
        ("their_code.deeper.Net", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_class_that_is_not_there_is_one_sentence(
    user_module: str, target: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        locate(target, "model._target_")


def test_a_class_that_forwards_what_it_does_not_know_is_given_what_its_parent_takes(
    compose_config: Any, user_module: str
) -> None:
    network: Any = build(
        compose_config(f"model._target_={user_module}.Forwarding"), [], True
    ).network
    assert network.stack[1].out_features == 6


def test_a_misspelt_key_in_an_option_of_theirs_is_not_dropped(
    compose_config: Any, user_module: str
) -> None:
    # Not one of our keys, and not typed on the command line either.
    cfg = compose_config(f"model._target_={user_module}.Net", "+model.wdith=5")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'wdith'"):
        build(cfg, [], quiet=True)


def test_an_error_in_the_users_own_constructor_keeps_its_traceback(
    compose_config: Any, user_module: str
) -> None:
    with pytest.raises(ZeroDivisionError, match="own constructor"):
        build(compose_config(f"model._target_={user_module}.Broken"), [], quiet=True)


def test_what_is_no_callback_is_one_sentence(compose_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.foo=3: not an object that can be made"):
        build(compose_config("+callbacks.foo=3"), [], quiet=True)


def test_the_schedule_and_the_spec_reach_the_callback(compose_config: Any) -> None:
    cfg = compose_config("power=2", "target_sparsity=0.7", "interval=percent", "total_iters=50")
    callbacks: list[pl.Callback] = build(cfg, [], quiet=True).trainer.callbacks  # type: ignore[attr-defined]
    pruning = next(one for one in callbacks if isinstance(one, ScheduledPruning))
    assert pruning.interval == "percent"
    assert pruning.config.global_config is not None
    assert pruning.config.global_config.sparsity_schedule.power == 2
    model = torch.nn.Linear(10, 10)
    pruner = MagnitudePruner(model, pruning.config)
    pruner.prepare()
    pruner.step(50)
    assert int((model.weight == 0).sum()) == 70


def test_the_schedule_that_validation_has_made_is_the_callbacks_own(compose_config: Any) -> None:
    resolved = resolve(compose_config("schedule=poly", "power=2"))
    objects = build_objects(resolved.values, [], True, resolved.schedule)
    callbacks: list[pl.Callback] = objects.trainer.callbacks  # type: ignore[attr-defined]
    (pruning,) = [one for one in callbacks if isinstance(one, ScheduledPruning)]
    assert resolved.schedule is not None
    assert all(one is resolved.schedule for one in schedules_of(pruning.config))
    assert schedules_of(pruning.config)


def test_the_dense_control_has_no_pruning_callback(compose_config: Any) -> None:
    callbacks = build(compose_config("schedule=none"), [], quiet=True).trainer.callbacks  # type: ignore[attr-defined]
    assert not any(isinstance(one, ScheduledPruning) for one in callbacks)


def test_the_same_seed_makes_the_same_weights_whatever_was_drawn_before(
    compose_config: Any,
) -> None:
    first = build(compose_config(), [], quiet=True).network.state_dict()
    torch.rand(7)
    second = build(compose_config(), [], quiet=True).network.state_dict()
    other = build(compose_config("seed=5"), [], quiet=True).network.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["layers.1.weight"], other["layers.1.weight"])


@pytest.mark.apart
@pytest.mark.parametrize(
    ("group", "kind", "base"),
    [("model", "LightningModule", "Lit"), ("data", "LightningDataModule", "Data")],
)
def test_what_is_made_for_the_other_import_root_is_one_sentence(
    compose_config: Any, user_module: str, group: str, kind: str, base: str
) -> None:
    lightning = pytest.importorskip("lightning.pytorch", reason="needs the extra lightning")
    made = type(base, (getattr(lightning, kind),), {})
    setattr(importlib.import_module(user_module), f"Other{base}", made)
    target = f"{group}._target_={user_module}.Other{base}"
    message = (
        f"{target} is a {kind} of lightning.pytorch, and the trainer here is one of "
        f"pytorch_lightning; allowed: from pytorch_lightning import {kind}"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(compose_config(target), [], quiet=True)
