"""A list of what configs may name, and what is refused by it before anything is made."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.target_policy import VARIABLE, named_targets, why_refused
from coreai_opt.config.validation import find_problems
from coreai_opt.experiment import ConfigError, allowed_targets
from tests.conftest import ROOT

NET = "model._target_=their_code.Net"


@pytest.fixture
def restricted() -> Iterator[None]:
    allowed_targets([])
    yield
    allowed_targets(None)


@pytest.fixture
def problems(compose_config: Any, user_module: str) -> Callable[..., list[str]]:
    return lambda *overrides: [str(one) for one in find_problems(compose_config(*overrides))]


def test_by_default_a_config_names_what_it_likes(problems: Callable[..., list[str]]) -> None:
    assert VARIABLE not in os.environ
    assert problems(NET, "criterion=their_code.Best") == []
    assert why_refused("os.system") is None


@pytest.mark.usefixtures("restricted")
def test_what_is_not_on_the_list_is_refused_in_one_sentence_each(
    problems: Callable[..., list[str]],
) -> None:
    found = problems(
        NET,
        "criterion=their_code.Best",
        "+callbacks.more={_target_:os.system,command:ls}",
        "+model.width={_target_:os.mkdir,path:made}",
        "pruning.global_config.op_state_spec.weight.pruning_scheme.type=their_code.Rows",
    )
    end = "is not among the allowed targets; allowed: those of our options"
    assert sorted(found) == [
        f"callbacks.more._target_=os.system {end}",
        f"criterion=their_code.Best {end}",
        f"model._target_=their_code.Net {end}",
        f"model.width._target_=os.mkdir {end}",
        f"pruning.global_config.op_state_spec.weight.pruning_scheme.type=their_code.Rows {end}",
    ]


@pytest.mark.parametrize(
    ("pattern", "target", "is_allowed"),
    [
        ("my.module.Net", "my.module.Net", True),
        ("my.module.Net", "my.module.Net.make", False),
        ("my.module.Net", "my.module.Network", False),
        ("my.module.*", "my.module.Net", True),
        ("my.module.*", "my.module.os.system", False),
        ("my.module.*", "my.modules.Net", False),
        ("my.module.*", "my.module", False),
        ("torch.optim.*", "torch.hub.load", False),
    ],
)
def test_a_pattern_is_one_path_or_the_names_of_one_module(
    restricted: None, pattern: str, target: str, is_allowed: bool
) -> None:
    allowed_targets([pattern])
    assert (why_refused(target) is None) == is_allowed


@pytest.mark.parametrize("pattern", ["*", "os", "my.*.Net", "my.module.N*", "", "a b.c", "my..x"])
def test_what_is_no_pattern_is_refused(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"is no dotted path; allowed: my\.module\.Class, or"):
        allowed_targets([pattern])
    assert VARIABLE not in os.environ
    if pattern:
        monkeypatch.setenv(VARIABLE, f"torch.optim.*:{pattern}")
        with pytest.raises(ValueError, match="is no dotted path"):
            why_refused("torch.optim.SGD")


def test_all_that_a_config_names_is_found() -> None:
    config = {
        "a": {"_target_": "x.A", "of": [{"_target_": "x.B"}, {"c": {"_target_": "x.C"}}]},
        "op_state_spec": {"weight": {"pruning_algo": "x.D"}, "bias": {"pruning_algo": "default"}},
    }
    assert list(named_targets(config)) == [
        (("a", "_target_"), "x.A"),
        (("a", "of", "0", "_target_"), "x.B"),
        (("a", "of", "1", "c", "_target_"), "x.C"),
        (("op_state_spec", "weight", "pruning_algo"), "x.D"),
    ]


def typed(folder: Path, *arguments: str, allowed: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=folder,
        env={**os.environ, VARIABLE: allowed},
        capture_output=True,
        text=True,
        timeout=180,
    )


MADE = "+hydra.callbacks.evil={_target_:os.mkdir,path:made}"
CASES = {
    "a run": [MADE],
    "a sweep": ["-m", "power=1,2", MADE],
    "by reference": ["+evil={_target_:os.mkdir,path:made}", "+hydra.callbacks.evil=${evil}"],
    "in the task": ["+callbacks.more={_target_:os.mkdir,path:made}"],
    "in a sweep's point": ["-m", "model._target_=os.mkdir,coreai_opt.models.MLP"],
    "cannot be read": ["+hydra.callbacks.evil={_target_:${nothing},path:made}"],
}


QUICK = ("a run", "by reference", "in a sweep's point")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(line, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, line in CASES.items()
    ],
)
def test_a_command_makes_nothing_that_is_not_allowed(work: Path, arguments: list[str]) -> None:
    done = typed(work, *arguments)
    assert done.returncode == 1, done.stderr
    assert "is not among the allowed targets; allowed: those of our options" in done.stderr
    assert list(work.iterdir()) == []


def test_a_config_does_not_change_the_list(work: Path) -> None:
    done = typed(work, f"+hydra.job.env_set.{VARIABLE}=os.*")
    assert done.returncode == 1
    assert f"hydra.job.env_set.{VARIABLE}: a config may not change what it may name" in done.stderr


def test_a_variable_that_is_wrong_is_one_sentence(work: Path) -> None:
    done = typed(work, allowed="os")
    assert done.returncode == 1
    assert "'os' is no dotted path" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(work.iterdir()) == []


@pytest.mark.slow
def test_what_is_allowed_runs(work: Path, user_module: str, tmp_path: Path) -> None:
    (work / "their_code.py").write_text((tmp_path / "their_code.py").read_text())
    arguments = [NET, "data=digits", "total_iters=8", "trainer.max_epochs=1"]
    assert typed(work, *arguments, allowed="their_code.*").returncode == 0
    swept = typed(work, "-m", *arguments, "power=1,2", allowed="their_code.Net")
    assert swept.returncode == 0, swept.stderr


def test_the_error_is_one_of_the_config(compose_config: Any, restricted: None) -> None:
    from coreai_opt.training.run import run

    with pytest.raises(ConfigError, match=r"os\.system is not among"):
        run(compose_config("+callbacks.more={_target_:os.system,command:ls}"))
