"""Documented commands and examples work.

A block of commands is tested here, by the program that a line begins with, unless a marker above
the block (``<!-- tested by FILE -->``) names the file that tests it. Commands whose output a page
shows are tested with it: tests/documents/test_troubleshooting.py.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from coreai_opt.cli.sweep_command import planned_sweep
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.hydra_internals import get_args_parser
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.config.validation import find_problems
from coreai_opt.report.__main__ import main as report
from coreai_opt.sweep.plugins import take_names
from coreai_opt.sweep.preview.request import read_request
from tests.conftest import ROOT
from tests.helpers.apps import stock_hydra
from tests.helpers.documents import PAGES, Block, blocks
from tests.helpers.synthetic_records import make_sweep

# In front of a command: it counts for that one.
VARIABLE = re.compile(r"^COREAI_OPT_\w+='[^']*' ")
# Packages of documented examples that the extra dev does not bring -> the extra that does.
OPTIONAL = {"peft": "huggingface", "transformers": "huggingface", "lightning": "lightning"}
IMPORT = re.compile(rf"^(?:import|from) ({'|'.join(OPTIONAL)})\b", re.MULTILINE)

COMMANDS = blocks("bash")
ELSEWHERE = [block for block in COMMANDS if block.tested_by is not None]
LINES = list(
    dict.fromkeys(
        VARIABLE.sub("", line)
        for block in COMMANDS
        if block.tested_by is None and not block.has_output
        for line in block.code.splitlines()
        if line.strip()
    )
)
OURS = ("python train.py", "scripts/train")
SEARCHES = [line for line in LINES if line.startswith(OURS) and "hydra/sweeper=optuna" in line]
RUNS = [line for line in LINES if line.startswith(OURS) and line not in SEARCHES]
README = PAGES[0].read_text().splitlines()
SLOW = [pytest.mark.slow]
REPORTS = [line for line in LINES if line.startswith(("scripts/report", "coreai-report"))]
# An app of somebody else's, which stands for any: the example.
APPS = [line for line in LINES if line.startswith(("python -m digits_app", "python my_app.py"))]
# Running scripts/test would run this test; the others are run by their own tests.
USAGES = "\n".join(
    (ROOT / "scripts" / name).read_text().partition("set -e")[0]
    for name in ("test", "docs", "slurm-dev-cluster")
)


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[] if line in README else SLOW) for line in RUNS]
)
def test_commands_compose_and_are_valid(line: str, compose_config: Any, plan: Any) -> None:
    words = [word for word in shlex.split(line)[1:] if word not in ("train.py", "--help")]
    # What is typed of the preview alone is for no config.
    arguments = read_request(word for word in words if word != "-m").overrides
    problems: list[Problem] = []
    if "-m" not in words:
        problems = find_problems(compose_config(*arguments))
    else:
        try:
            assert plan(*arguments).points
        except ConfigError as error:
            problems = error.problems
    # The reader's own classes and files are all that may be missing.
    missing = ("my.module", "there is no such file")
    assert [one for one in problems if not any(part in str(one) for part in missing)] == []


@pytest.mark.parametrize("line", SEARCHES)
def test_searches_can_be_planned(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="needs the extra optuna")
    monkeypatch.chdir(tmp_path)
    register_nodes()
    take_names()
    program, *arguments = shlex.split(line)[1:]
    sweep = planned_sweep(get_args_parser().parse_args(arguments))
    assert program == "train.py"
    assert sweep is not None
    assert sweep.plan.knobs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", REPORTS)
def test_reports_work(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_sweep(tmp_path / "multirun" / "power-seed-3f9a1c", runs=6)
    report([*shlex.split(line)[1:], "--no-figures"])
    assert "6 runs: " in capsys.readouterr().out


@pytest.mark.parametrize("line", APPS)
def test_commands_of_other_apps_compose(line: str) -> None:
    # From the app's own start they are composed by tests/integration/test_installation.py.
    pytest.importorskip("hydra_plugins.hydra_coreai_opt", reason="the project is not installed")
    words = shlex.split(line)
    typed = words[3:] if words[1] == "-m" else words[2:]
    conf = ROOT / "examples" / "own_app" / "digits_app" / "conf"
    with stock_hydra(), initialize_config_dir(str(conf), version_base="1.3"):
        # The first point of a sweep; the app itself sweeps in tests/integration.
        first = [word.partition(",")[0] for word in typed if not word.startswith("-")]
        config = compose("config", first)
    assert ("prune" in config) == any(word.startswith("+prune=") for word in words)


@pytest.mark.parametrize(
    "line", [line for line in LINES if line not in (*RUNS, *SEARCHES, *REPORTS, *APPS)]
)
def test_other_commands_are_in_the_usage_of_a_script(line: str) -> None:
    usage = [words.lstrip("# ").partition("  ")[0] for words in USAGES.splitlines()]
    assert line in usage


@pytest.mark.parametrize("block", ELSEWHERE, ids=str)
def test_a_marker_names_a_file_that_is_there(block: Block) -> None:
    assert (ROOT / str(block.tested_by)).is_file()


def test_each_example_is_documented() -> None:
    folder = ROOT / "examples"
    page = (folder / "README.md").read_text()
    for file in (*folder.glob("*.py"), *folder.glob("*.ipynb")):
        assert f" examples/{file.name}\n" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_language_that_is_tested(page: Path) -> None:
    # Of api.md the examples are doctests; text is what a program prints.
    fences = re.findall(r"^.*```(.*)$", page.read_text(), re.MULTILINE)
    kinds = ["bash", "python", "text", "yaml", *(["pycon"] if page.name == "api.md" else [])]
    assert set(fences[::2]) <= set(kinds), "a block that is indented, or has no language"
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block, id=str(block), marks=[pytest.mark.apart] * bool(IMPORT.search(block.code))
        )
        for block in blocks("python")
    ],
)
@pytest.mark.filterwarnings("ignore:.*`ModelCheckpoint.*:UserWarning")
def test_documented_python_runs(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in IMPORT.findall(block.code):
        pytest.importorskip(package, reason=f"needs the extra {OPTIONAL[package]}")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.code, "documented", "exec"), {"__name__": "documented"})
