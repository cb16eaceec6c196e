"""What is typed of the preview, and what is left for Hydra."""

import sys
from argparse import Namespace

import pytest

from coreai_opt.cli.arguments import wants_preview
from coreai_opt.config.errors import ConfigError
from coreai_opt.sweep.preview.request import read_request


@pytest.mark.parametrize(
    ("typed", "is_wanted", "png"),
    [
        ([], False, False),
        (["preview=true"], True, False),
        (["preview=True", "preview.png=TRUE"], True, True),
        (["preview.png=true"], True, True),
        (["preview.png=false"], False, False),
        (["preview=false", "preview.png=true"], False, True),
        (["preview=true", "preview=false"], False, False),
        (["preview=false", "preview=true"], True, False),
        (["++preview=true"], True, False),
        (["preview='true'"], True, False),
        (["preview= true"], True, False),
    ],
    ids=str,
)
def test_what_is_asked_for(typed: list[str], is_wanted: bool, png: bool) -> None:
    request = read_request(["power=2", *typed, "seed=3"])
    assert (request.is_wanted, request.png) == (is_wanted, png)
    assert request.overrides == ("power=2", "seed=3")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("preview=maybe", "preview=maybe: neither true nor false; allowed: true or false"),
        ("preview=", "preview=: neither true nor false; allowed: true or false"),
        ("preview=1", "preview=1: neither true nor false; allowed: true or false"),
        (
            "preview=true,false",
            "preview=true,false: neither true nor false; allowed: true or false",
        ),
        ("preview.png=3", "preview.png=3: neither true nor false; allowed: true or false"),
        (
            "preview.foo=1",
            "preview.foo=1: there is no key 'preview.foo'; allowed: preview=true, preview.png=true",
        ),
    ],
)
def test_anything_else_is_one_sentence(typed: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_request(["power=2", typed])
    assert [str(problem) for problem in caught.value.problems] == [sentence]


def test_a_key_that_begins_alike_is_somebody_elses() -> None:
    assert read_request(["previewer=3"]).overrides == ("previewer=3",)


def test_hydra_gets_what_it_has_a_key_for(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["preview=false", "preview.png=true", "power=2"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *typed])
    arguments = Namespace(overrides=list(typed), multirun=True)
    assert not wants_preview(arguments)
    assert sys.argv == ["train.py", "-m", "preview=false", "power=2"]
    assert arguments.overrides == ["preview=false", "power=2"]


def test_a_preview_is_taken_out_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["preview=true", "preview.png=true", "power=2"]
    monkeypatch.setattr(sys, "argv", ["train.py", *typed])
    arguments = Namespace(overrides=list(typed), multirun=False)
    assert wants_preview(arguments)
    assert sys.argv == ["train.py", "power=2"]
    assert arguments.overrides == ["power=2"]


@pytest.mark.parametrize("flag", ["cfg", "info", "hydra_help", "version", "shell_completion"])
def test_hydra_shows_what_it_is_asked_for(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["preview=true", "preview.png=true"]
    monkeypatch.setattr(sys, "argv", ["train.py", *typed])
    arguments = Namespace(overrides=list(typed), multirun=False, **{flag: "job"})
    assert not wants_preview(arguments)
    assert sys.argv == ["train.py", "preview=true"]
