"""What Hydra refuses is said with its reason, whichever sign stands before the key."""

import pytest
from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.experiment.composing import command_context
from coreai_opt.experiment.diagnosis import diagnose
from coreai_opt.experiment.nodes import register_nodes

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
    "a package": [
        ("optimizer@here=sgd", "the defaults have none such; allowed: +optimizer@here=sgd"),
        ("trainr@here=cpu", "there is no group 'trainr'; allowed: callbacks"),
    ],
}


@pytest.mark.parametrize("expected", REFUSED.values(), ids=REFUSED)
def test_the_reason_is_said(expected: list[tuple[str, str]]) -> None:
    register_nodes()
    overrides = [text for text, _ in expected]
    arguments, errors = get_args_parser().parse_args([]), (HydraException, OmegaConfBaseException)
    with command_context(arguments) as name, pytest.raises(errors) as refused:
        compose(name, overrides)
    problems = [str(one) for one in diagnose(refused.value, overrides)]
    assert len(problems) == len(expected)
    for text, reason in expected:
        assert any(one.startswith(f"{text}: ") and reason in one for one in problems), problems


def test_lists_beside_what_does_not_parse_are_no_second_problem() -> None:
    register_nodes()
    overrides = [r"+a\.b=null", "seed=1,2"]
    arguments = get_args_parser().parse_args([])
    with command_context(arguments) as name, pytest.raises(HydraException) as refused:
        compose(name, overrides)
    assert len(diagnose(refused.value, overrides)) == 1
