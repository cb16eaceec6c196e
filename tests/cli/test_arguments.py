"""Whether a command line is a sweep: by a flag, by what is typed, by what a file says."""

from argparse import Namespace
from pathlib import Path

import pytest

from coreai_opt.cli import arguments as asked
from coreai_opt.cli.arguments import is_sweep
from coreai_opt.config.hydra_internals import get_args_parser
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.sweep.plugins import take_names

GRID = """\
# @package _global_
hydra:
  mode: MULTIRUN
  sweeper: {params: {seed: "1,2"}}
"""

OWN = """\
defaults: [config, _self_]
hydra: {mode: MULTIRUN}
"""


@pytest.fixture
def folder(work: Path) -> str:
    (work / "experiment").mkdir()
    (work / "experiment" / "grid.yaml").write_text(GRID)
    (work / "own.yaml").write_text(OWN)
    register_nodes()
    take_names()
    return str(work)


def typed(*words: str) -> Namespace:
    return get_args_parser().parse_args(list(words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["experiment=grid"], True),
        (["experiment=quick"], False),
        (["experiment=grid", "hydra.mode=RUN"], False),
        (["experiment=grid", "nothing=3"], False),
        (["--config-name", "own"], True),
    ],
    ids=str,
)
def test_a_file_says_so(folder: str, words: list[str], expected: bool) -> None:
    assert is_sweep(typed("--config-dir", folder, *words)) is expected


def test_a_file_in_the_search_path_says_so(folder: str) -> None:
    path = "'file://" + folder.replace("'", "\\'") + "'"
    assert is_sweep(typed("experiment=grid", f"hydra.searchpath=[{path}]"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m"], True),
        (["hydra.mode=MULTIRUN"], True),
        (["++hydra.mode=MULTIRUN"], True),
        (["hydra.mode=MULTIRUN", "hydra.mode=RUN"], False),
        (["seed=1"], False),
    ],
    ids=str,
)
def test_what_is_typed_needs_no_composing(
    words: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "_filed_mode", None)
    assert is_sweep(typed(*words)) is expected


def test_no_file_of_ours_makes_a_sweep_of_a_single_run() -> None:
    assert not [
        file for file in conf_dir().rglob("*.yaml") if asked.FILED.search(file.read_bytes())
    ]
