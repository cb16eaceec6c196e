"""What constructors of a user's own raise, and chains of exceptions of every shape."""

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError, RunFailedError, error_chain, message_of
from coreai_opt.runs.signals import exit_code_of
from coreai_opt.training.run import run
from tests.helpers.building import build
from tests.helpers.quick_runs import QUICK, QUICK_FOR_THEIRS

RAISING = """
import dataclasses
import json
import pytorch_lightning as pl
import torch
from coreai_opt.data import Digits
from coreai_opt.models import MLP


class NeedsTwo(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Mute(Exception):
    def __str__(self):
        return self.no_such_attribute


def own_cause():
    error = RuntimeError("its own cause")
    raise error from error


def ring():
    first, second, third = RuntimeError("first"), OSError("second"), KeyError("third")
    first.__cause__, second.__cause__, third.__cause__ = second, third, first
    raise first


def ring_of_contexts():
    first, second = RuntimeError("first"), OSError("second")
    first.__context__, second.__context__ = second, first
    raise first


def reraised_in_a_ring():
    try:
        raise OSError("inner")
    except OSError as inner:
        try:
            raise RuntimeError("outer") from inner
        except RuntimeError as outer:
            raise inner from outer


def exits():
    raise SystemExit(3)


def fail(error):
    raise error


KINDS = {
    "FileNotFoundError": lambda: fail(FileNotFoundError("no such folder: images")),
    "RuntimeError": lambda: fail(RuntimeError("size mismatch for head.weight")),
    "KeyError": lambda: fail(KeyError("backbone")),
    "ImportError": lambda: fail(ImportError("no such backbone")),
    "AssertionError": lambda: fail(AssertionError()),
    "NeedsTwo": lambda: fail(NeedsTwo(1, 2)),
    "Mute": lambda: fail(Mute()),
    "ExceptionGroup": lambda: fail(ExceptionGroup("two", [OSError("a"), KeyError("b")])),
    "SystemExit": exits,
    "own_cause": own_cause,
    "ring": ring,
    "ring_of_contexts": ring_of_contexts,
    "reraised_in_a_ring": reraised_in_a_ring,
}


class Net(MLP):
    def __init__(self, kind="RuntimeError", **given):
        super().__init__(**given)
        KINDS[kind]()


class Images(Digits):
    def __init__(self, **given):
        super().__init__(**given)
        KINDS["FileNotFoundError"]()


class Callback(pl.Callback):
    def __init__(self):
        KINDS["FileNotFoundError"]()


class Logger(pl.loggers.CSVLogger):
    def __init__(self, **given):
        KINDS["FileNotFoundError"]()


class Trainer(pl.Trainer):
    def __init__(self, **given):
        KINDS["FileNotFoundError"]()


def check(width):
    if width < 1:
        raise ValueError(f"width {width} is below 1")


FAULTS = {
    "json": lambda: json.loads("{"),
    "helper": lambda: check(0),
    "linear": lambda: torch.nn.Linear("a", 2),
}


class Faulty(MLP):
    def __init__(self, kind, **given):
        super().__init__(**given)
        if kind == "int":
            self.size = int("abc")
        if kind == "len":
            self.size = len(3)
        if kind == "other":
            self.head = torch.nn.Linear()
        FAULTS[kind]()


class Refusing(MLP):
    def __init__(self, width=1, given=None, **rest):
        if width < 1:
            raise ValueError(f"width {width} is below 1")
        super().__init__(**rest, **(given or {}))


@dataclasses.dataclass
class Fields(Digits):
    width: int = 0

    def __post_init__(self):
        raise TypeError("width is no number")


class OwnTrainer(pl.Trainer):
    def __init__(self, **given):
        super().__init__(**given)


def make(width=1):
    if width < 1:
        raise ValueError(f"width {width} is below 1")
    return MLP(depth=3)


def no_optimizer(parameters, **given):
    KINDS["FileNotFoundError"]()
"""


@pytest.fixture
def raising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a module whose constructors raise on the path and return its name."""
    (tmp_path / "raising_code.py").write_text(RAISING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "raising_code", raising=False)
    return "raising_code"


def own_error() -> BaseException:
    error = RuntimeError("its own")
    error.__cause__ = error.__context__ = error
    return error


def ring(size: int, link: str, last: BaseException) -> BaseException:
    errors = [RuntimeError(str(number)) for number in range(size - 1)] + [last]
    for number, error in enumerate(errors):
        setattr(error, link, errors[(number + 1) % size])
    return errors[0]


def deep(size: int, link: str, last: BaseException) -> BaseException:
    for number in range(size):
        outer = RuntimeError(str(number))
        setattr(outer, link, last)
        last = outer
    return last


def test_a_chain_names_each_error_once_and_the_nearest_first() -> None:
    inner, cause, context = OSError("inner"), KeyError("cause"), ValueError("context")
    outer = ExceptionGroup("outer", [inner])
    outer.__cause__, outer.__context__ = cause, context
    cause.__context__ = outer
    assert list(error_chain(outer)) == [outer, cause, context, inner]
    assert list(error_chain(one := own_error())) == [one]


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
@pytest.mark.parametrize("size", [2, 3])
def test_a_ring_is_walked_once(size: int, link: str) -> None:
    assert len(list(error_chain(ring(size, link, OSError())))) == size
    assert exit_code_of(ring(size, link, OSError())) is None
    assert exit_code_of(ring(size, link, KeyboardInterrupt())) == 130


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_a_deep_chain_is_walked_to_its_end(link: str) -> None:
    assert exit_code_of(deep(20_000, link, KeyboardInterrupt())) == 130
    assert exit_code_of(deep(20_000, link, OSError())) is None


def test_a_signal_among_others_is_what_ended_the_run() -> None:
    assert exit_code_of(BaseExceptionGroup("", [OSError(), KeyboardInterrupt()])) == 130


def test_a_message_that_cannot_be_made_is_no_error() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise AttributeError

    assert message_of(Mute()) == "the message cannot be shown: AttributeError in __str__"


def test_a_message_that_no_file_takes_is_escaped() -> None:
    assert message_of(RuntimeError("\ud800 surrogate \x00 ü")) == "\\ud800 surrogate \x00 ü"


def more(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("FileNotFoundError", "FileNotFoundError: no such folder: images"),
        more("RuntimeError", "RuntimeError: size mismatch for head.weight"),
        more("KeyError", "KeyError: 'backbone'"),
        more("ImportError", "ImportError: no such backbone"),
        more("AssertionError", "AssertionError: AssertionError"),
        ("NeedsTwo", "NeedsTwo: 1 and 2"),
        more("Mute", "Mute: the message cannot be shown: AttributeError in __str__"),
        more("ExceptionGroup", "ExceptionGroup: two (2 sub-exceptions)"),
        more("SystemExit", "SystemExit: 3"),
        ("own_cause", "RuntimeError: its own cause"),
        ("ring", "RuntimeError: first"),
        more("ring_of_contexts", "RuntimeError: first"),
        more("reraised_in_a_ring", "OSError: inner"),
    ],
)
def test_what_a_constructor_raises_is_in_the_record_with_its_place(
    compose_config: Any, raising: str, tmp_path: Path, kind: str, cause: str
) -> None:
    cfg = compose_config(*QUICK_FOR_THEIRS, f"model._target_={raising}.Net", f"+model.kind={kind}")
    with pytest.raises(RunFailedError) as caught:
        run(cfg)
    assert caught.value.cause == cause
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["status"] == "failed"
    assert record["error"]["type"] == cause.partition(":")[0]
    assert f'{raising}.py", line' in record["error"]["traceback"]
    assert "Error in call to target" not in record["error"]["traceback"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("json", ValueError),
        ("helper", ValueError),
        ("linear", TypeError),
        ("int", ValueError),
        ("len", TypeError),
        ("other", TypeError),
    ],
)
def test_a_fault_within_a_constructor_is_no_refusal_of_its_arguments(
    compose_config: Any, raising: str, kind: str, error: type[Exception]
) -> None:
    cfg = compose_config(f"model._target_={raising}.Faulty", f"+model.kind={kind}")
    with pytest.raises(error) as caught:
        build(cfg, [], quiet=True)
    assert f'{raising}.py", line' in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model._target_={}.Refusing", "+model.width=0"], "width 0 is below 1, at .*{}.py:"),
        (["model._target_={}.Refusing", "+model.given.depth=3"], "'depth', at .*{}.py:"),
        (["model._target_={}.Faulty", "+model.knd=json"], "missing 1 .* 'kind'$|argument 'knd'$"),
        (["data._target_={}.Fields", "+data.width=0"], "width is no number, at .*{}.py:"),
        (["trainer._target_={}.OwnTrainer", "trainer.precision=9"], "is invalid.*, at .*{}.py:"),
        (["model._target_={}.make", "+model.width=0"], "width 0 is below 1, at .*{}.py:"),
        (["model._target_={}.make"], "argument 'depth', at .*{}.py:"),
        (["trainer.precision=9"], "Precision 9 is invalid[^/]*$"),
    ],
    ids=str,
)
def test_a_refusal_of_arguments_is_one_sentence_with_its_place(
    compose_config: Any, raising: str, overrides: list[str], sentence: str
) -> None:
    cfg = compose_config(*[one.format(raising) for one in overrides])
    with pytest.raises(ConfigError, match=f"cannot be made: .*{sentence.format(raising)}"):
        build(cfg, [one.format(raising) for one in overrides], quiet=True)


@pytest.mark.parametrize("key", ["optimizer", more("optimizer.lr_schedule")])
def test_an_optimizer_that_cannot_be_made_fails_the_run(
    compose_config: Any, raising: str, key: str
) -> None:
    theirs = [f"++{key}._target_={raising}.no_optimizer", f"++{key}._partial_=true"]
    with pytest.raises(RunFailedError, match="FileNotFoundError: no such folder: images"):
        run(compose_config(*QUICK, *theirs))


@pytest.mark.parametrize(
    "overrides",
    [
        ["data._target_={}.Images"],
        ["+callbacks.own._target_={}.Callback"],
        ["logger.csv._target_={}.Logger"],
        ["trainer._target_={}.Trainer"],
    ],
    ids=lambda overrides: overrides[0].partition("=")[0],
)
def test_a_constructor_anywhere_fails_the_run_with_its_own_error(
    compose_config: Any, raising: str, overrides: list[str]
) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder") as caught:
        build(compose_config(*[one.format(raising) for one in overrides]), [], quiet=True)
    assert caught.value.__cause__ is None
    assert "Error in call to target" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.precision=transformer-engine", r"trainer \(pytorch_lightning.Trainer\).*transf"),
        ("+callbacks.own._target_=no.such.Class", r"callbacks.own \(no.such.Class\)"),
    ],
)
def test_what_is_not_installed_is_one_sentence(
    compose_config: Any, override: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(compose_config(override), [], quiet=True)


def test_a_config_error_does_not_become_its_own_cause(
    compose_config: Any, user_module: str
) -> None:
    cfg = compose_config(*QUICK_FOR_THEIRS, f"model._target_={user_module}.Net", "+model.depth=3")
    with pytest.raises(ConfigError) as caught:
        run(cfg)
    assert caught.value.__cause__ is not caught.value
