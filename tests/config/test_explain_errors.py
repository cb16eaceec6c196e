"""What Hydra refuses is said with its reason, whichever sign stands before the key."""

import pytest
from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.composing import command_context
from coreai_opt.config.explain_errors import diagnose
from coreai_opt.config.group_options import option_problems
from coreai_opt.config.hydra_internals import get_args_parser
from coreai_opt.config.schemas.nodes import register_nodes

WEIGHT = "pruning.global_config.op_state_spec.weight"

# Overrides of one command line, and a sentence for each, in the order in which Hydra finds them.
REFUSED: dict[str, list[tuple[str, str]]] = {
    "a wrong value": [
        ("++trainer.max_epochs=abc", "Value 'abc' of type 'str' could not be converted to Integer"),
        ("++optimizer.lr={a: 1}", "could not be converted to Float; allowed: learning rate, > 0"),
        ("+trainer.accumulate_grad_batches={0:1,2:4}", "'dict' could not be converted to Integer"),
        ("+seed=4", "seed is there already; allowed: seed=4"),
    ],
    "taken away": [
        ("~trainer.max_epochs", "always has a value; allowed: trainer.max_epochs=VALUE, passes"),
        ("~trainer.devices=2", "'trainer.devices' is 1 and not 2"),
        ("~init_from", "init_from is null; there is nothing to take away"),
        ("~callbacks.nope", "there is no key 'callbacks.nope'; allowed: callbacks.best_checkpoint"),
    ],
    "a group": [
        ("++optimizer=adamw", "a group takes no ++; allowed: optimizer=adamw"),
        ("~data=cifar10", "data=mnist_subset is chosen; allowed: ~data"),
    ],
    "a group twice": [("+optimizer=adamw", "optimizer is there already; allowed: optimizer=adamw")],
    "a list of options": [("callbacks=[default,nosuch]", "no option 'nosuch'; allowed: best_")],
    "taken away and set": [
        ("~objective.name", ""),
        ("objective.name=train/loss", "~objective.name takes objective.name away"),
    ],
    "a dict of keys that are not there": [
        (f"{WEIGHT}.pruning_scheme={{type: n_m, n: 2}}", f"allowed: ++{WEIGHT}.pruning_scheme={{t"),
    ],
    "a list for a setting of Hydra's": [
        ("hydra.sweeper.params.seed=7,8", "do not vary; allowed: seed=7,8"),
    ],
    "null in a choice": [("+x=choice(null,{a: 1})", "in a search as well: +x=null,{a: 1}")],
    "a package": [
        ("optimizer@here=sgd", "the defaults have none such; allowed: +optimizer@here=sgd"),
        ("trainr@here=cpu", "there is no group 'trainr'; allowed: callbacks"),
    ],
}


# Each composes once more for each that is wrong.
LONG = ("a wrong value", "taken away")


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(expected, id=name, marks=[pytest.mark.slow] if name in LONG else [])
        for name, expected in REFUSED.items()
    ],
)
def test_the_reason_is_said(expected: list[tuple[str, str]]) -> None:
    register_nodes()
    overrides = [text for text, _ in expected]
    arguments, errors = get_args_parser().parse_args([]), (HydraException, OmegaConfBaseException)
    with command_context(arguments) as name, pytest.raises(errors) as refused:
        compose(name, overrides)
    problems = [str(one) for one in diagnose(refused.value, overrides)]
    wrong = [(text, reason) for text, reason in expected if reason]
    assert len(problems) == len(wrong)
    for text, reason in wrong:
        assert any(one.startswith(f"{text}: ") and reason in one for one in problems), problems


def test_lists_beside_what_does_not_parse_are_no_second_problem() -> None:
    register_nodes()
    overrides = [r"+a\.b=null", "seed=1,2"]
    arguments = get_args_parser().parse_args([])
    with command_context(arguments) as name, pytest.raises(HydraException) as refused:
        compose(name, overrides)
    assert len(diagnose(refused.value, overrides)) == 1


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("optimizer=[1,2]", "adamw, sgd"),
        ("optimizer=[1],[2]", "adamw, sgd"),
        ("optimizer=sgd,[[adamw]]", "adamw, sgd"),
        ("+callbacks=[[default]]", "best_checkpoint, default, "),
        ("data=[{a: 1}]", "cifar10, digits, "),
        ("hydra/launcher=[1]", "basic, "),
    ],
)
def test_a_list_of_anything_but_names_is_refused(override: str, allowed: str) -> None:
    register_nodes()
    [problem] = option_problems(["seed=1", override])
    assert str(problem).startswith(f"{override}: not the names of options; allowed: {allowed}")


@pytest.mark.parametrize(
    "override",
    [
        *("callbacks=[default]", "optimizer=[]", "model.hidden=[1]", "model={hidden: [1]}", "a=[["),
        *("schedule=[poly],[linear]", "optimizer='[1]'", "callbacks=['default']", "~callbacks"),
    ],
)
def test_other_lists_are_left_to_hydra(override: str) -> None:
    assert option_problems([override]) == []
