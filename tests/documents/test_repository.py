"""The habits of the repository: exports, sizes, links, and that what is documented works."""

import ast
import importlib
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser

from coreai_opt.cli.sweep_command import planned_sweep
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.groups import config_groups, root_knobs
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.config.validation import find_problems
from coreai_opt.report.__main__ import main as report
from coreai_opt.sweep.preview.request import read_request
from coreai_opt.sweep.sweeper import register_sweepers
from tests.conftest import ROOT
from tests.documents.test_troubleshooting import WRONG
from tests.examples.running import COMMANDS
from tests.helpers.synthetic_records import make_sweep
from tests.plugin.conftest import stock_hydra

PACKAGES = [
    "coreai_opt",
    "coreai_opt.data",
    "coreai_opt.experiment",
    "coreai_opt.models",
    "coreai_opt.pruning",
    "coreai_opt.pruning.config",
    "coreai_opt.pruning.spec",
    "coreai_opt.sweep",
    "lightning_callbacks",
]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
]
SOURCES = [
    *sorted((ROOT / "coreai_opt").rglob("*.py")),
    *sorted((ROOT / "lightning_callbacks").rglob("*.py")),
    *sorted((ROOT / "scripts").glob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
    ROOT / "train.py",
]
# In front of a command: it counts for that one.
VARIABLE = re.compile(r"^COREAI_OPT_\w+='[^']*' ")
# Packages of documented examples that the extra dev does not bring -> the extra that does.
OPTIONAL = {"peft": "huggingface", "transformers": "huggingface", "lightning": "lightning"}
IMPORT = re.compile(rf"^(?:import|from) ({'|'.join(OPTIONAL)})\b", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[Any]:
    for page in PAGES:
        for index, match in enumerate(BLOCK.finditer(page.read_text())):
            if match[1] == language:
                is_apart = IMPORT.search(match[2]) is not None
                marks = [pytest.mark.apart] if is_apart else []
                yield pytest.param(match[2], id=f"{page.name}-{index}", marks=marks)


def commands() -> Iterator[str]:
    """Yield the documented commands, but for those that are to go wrong."""
    for block in blocks("bash"):
        for line in block.values[0].splitlines():
            # Of docs/troubleshooting.md, run by its own tests.
            if line.strip() and line not in WRONG:
                yield VARIABLE.sub("", line)


SEARCH = [line for line in commands() if "hydra/sweeper=optuna" in line]

# Of docs/extending.md, with files that it brings: tests/integration/test_extending.py.
EXTENDING = [line for line in commands() if "--config-dir=options" in line]

TRAIN = [
    line
    for line in commands()
    if line.startswith(("python train.py", "scripts/train")) and line not in (*SEARCH, *EXTENDING)
]

REPORT = [line for line in commands() if line.startswith("scripts/report")]
USAGES = "".join(
    (ROOT / "scripts" / name).read_text().partition("set -e")[0] for name in ("test", "docs")
)
CHECK = [line for line in commands() if line.startswith(("scripts/test", "scripts/docs"))]
# An app of somebody else's, which stands for any: the example.
APP = [line for line in commands() if line.startswith(("python -m digits_app", "python my_app.py"))]
EXAMPLE = [line for line in commands() if " examples/" in line]
COMPLETION = 'eval "$(python train.py -sc install=bash)"'
INSTALL = ["pip install -c constraints.txt -e '.[dev]'", "pip install dist/*.whl"]
# Of docs/lightning-cli.md: tests/documents/test_documented_examples.py runs all of them.
CLI = [line for line in commands() if line.startswith("python cli.py")]
CLUSTER = [line for line in commands() if "scripts/slurm-dev-cluster" in line]


def sorting_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as the linter sorts them."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_exports_sorted_names_that_are_there(name: str) -> None:
    package = importlib.import_module(name)
    exported = package.__all__
    assert exported == sorted(exported, key=sorting_key)
    for attribute in exported:
        assert getattr(package, attribute) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_every_folder_of_sources_is_a_package_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    elsewhere = project["package-dir"]
    folders = {elsewhere.get(name, name.replace(".", "/")) for name in project["packages"]}
    there = {
        file.parent.relative_to(ROOT).as_posix()
        for root in ("coreai_opt", "lightning_callbacks")
        for file in (ROOT / root).rglob("*.py")
    }
    assert there == folders - {"conf"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            docstring = ast.get_docstring(node) or ""
            length = node.end_lineno - node.body[0].lineno + 1 - len(docstring.splitlines())
            assert length <= 40, f"{node.name} has {length} lines"


def test_no_message_is_taken_for_markup() -> None:
    # rich would swallow "[demo]", and names hold brackets and colons.
    for file in SOURCES:
        if not file.is_relative_to(ROOT / "coreai_opt"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Console"):
                given = {one.arg: ast.unparse(one.value) for one in node.keywords}
                assert (given.get("markup"), given.get("emoji")) == ("False", "False"), file


def test_train_py_does_nothing_by_itself() -> None:
    assert len((ROOT / "train.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_what_clusters_do_is_backed_by_tests() -> None:
    page = (ROOT / "docs" / "clusters.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    written = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert [name for name in named if f"def {name}(" not in written] == []


@pytest.mark.parametrize("code", list(blocks("python")))
@pytest.mark.filterwarnings("ignore:.*`ModelCheckpoint.*:UserWarning")
def test_documented_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in IMPORT.findall(code):
        pytest.importorskip(package, reason=f"needs the extra {OPTIONAL[package]}")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "documented", "exec"), {"__name__": "documented"})


@pytest.mark.parametrize("line", TRAIN)
def test_documented_commands_compose_and_are_valid(
    line: str, compose_config: Any, plan: Any
) -> None:
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


@pytest.mark.parametrize("line", SEARCH)
def test_documented_searches_can_be_planned(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="needs the extra optuna")
    monkeypatch.chdir(tmp_path)
    register_nodes()
    register_sweepers()
    program, *arguments = shlex.split(line)[1:]
    sweep = planned_sweep(get_args_parser().parse_args(arguments))
    assert program == "train.py"
    assert sweep is not None
    assert sweep._sweep.plan.knobs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", REPORT)
def test_documented_reports_work(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_sweep(tmp_path / "multirun" / "power-seed-3f9a1c", runs=6)
    report([*shlex.split(line)[1:], "--no-figures"])
    assert "6 runs: " in capsys.readouterr().out


@pytest.mark.parametrize("line", APP)
def test_documented_commands_of_other_apps_compose(line: str) -> None:
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


def test_documented_examples_are_all_that_there_are_and_are_run() -> None:
    # By tests/examples.
    assert sorted(EXAMPLE) == sorted(COMMANDS)
    there = {*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")}
    assert {ROOT / line.split()[-1] for line in EXAMPLE} == there


@pytest.mark.parametrize("line", CLUSTER)
def test_documented_commands_of_the_cluster_are_those_of_its_script(line: str) -> None:
    # What they do is run by tests/cluster, and install by .ci/run.
    usage = subprocess.run(
        [ROOT / "scripts" / "slurm-dev-cluster", "--help"], capture_output=True, text=True
    )
    assert line in usage.stdout


@pytest.mark.parametrize("line", CHECK)
def test_documented_checks_are_those_of_the_script(line: str) -> None:
    # Running scripts/test would run this test; what scripts/docs does is done by test_site.py.
    usage = [words.lstrip("# ").partition("  ")[0] for words in USAGES.splitlines()]
    assert line in usage


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_tested(page: Path) -> None:
    # Of api.md the examples are doctests; text is what a program prints.
    fences = re.findall(r"^.*```(.*)$", page.read_text(), re.MULTILINE)
    found = [match[1] for match in BLOCK.finditer(page.read_text())]
    assert len(fences) == 2 * len(found), "a block that is indented, or has no language"
    kinds = {"bash", "python", "text", "yaml", "pycon"}
    assert set(found) <= (kinds if page.name == "api.md" else kinds - {"pycon"})


def test_every_documented_command_is_of_a_kind_that_is_tested() -> None:
    tested = [*TRAIN, *SEARCH, *REPORT, *CLUSTER, *CHECK, *CLI, *APP, *EXTENDING]
    # Run by bootstrap.sh, tests/integration/test_installation.py and test_completion.py there.
    assert {line for line in commands() if line not in (*tested, *EXAMPLE)} == {
        *INSTALL,
        COMPLETION,
    }


def test_commands_that_go_wrong_are_shown_on_their_page_alone() -> None:
    pages = "\n".join(page.read_text() for page in PAGES).splitlines()
    assert [line for line in WRONG if pages.count(line) != 1] == []


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["title"].lower() == f"{project['name']}: {project['description']}".lower()


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").iterdir()), ids=lambda form: form.name
)
def test_forms_of_issues_are_whole(form: Path) -> None:
    read = yaml.safe_load(form.read_text())
    assert read["name"]
    assert read["description"]
    fields = [field["id"] for field in read["body"]]
    assert len(set(fields)) == len(fields)
    for field in read["body"]:
        assert field["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"]["label"]


def test_the_knobs_of_the_schedules_page_are_those_of_the_config() -> None:
    page = (ROOT / "docs" / "schedules.md").read_text()
    group = next(group for group in config_groups() if group.name == "schedule")
    for option in group.options:
        assert f"| `{option.name}` |" in page
    for option in group.options:
        start = f"| `{option.name}` |"
        if option.name not in ("linear", "cubic"):  # they refer to poly
            row = next(line for line in page.splitlines() if line.startswith(start))
            words = re.findall(r"`(\w+)`", row.rpartition(" | ")[2])
            assert words == [knob.name for knob in option.knobs]


@pytest.mark.parametrize("option", ["cosine", "exponential", "multistep"])
def test_the_values_of_the_schedules_page_are_those_of_the_code(option: str) -> None:
    page = (ROOT / "docs" / "schedules.md").read_text()
    section = page.partition(f"\n## `{option}`\n")[2].partition("\n## ")[0]
    block = BLOCK.search(section)
    target = re.search(r"sparsity at a target of (\S+)", section)
    assert block is not None
    assert target is not None
    names: dict[str, Any] = {}
    exec(compile(block[2], "documented", "exec"), names)
    rows = re.findall(r"^\| (\d+) \| (\S+) \|", section, re.MULTILINE)
    value: float | None = None
    for step, documented in rows:
        value = names["schedule"].compute_sparsity(int(step), float(target[1]), value)
        assert value == pytest.approx(float(documented), rel=0, abs=1e-12), step
    assert len(rows) >= 6


def test_the_picture_of_the_schedules_is_what_they_do() -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra demo")
    drawing = runpy.run_path(str(ROOT / "scripts" / "draw_schedules.py"))
    with image.open(drawing["PICTURE"]) as picture:
        assert picture.info["Comment"] == drawing["shown"](), "python scripts/draw_schedules.py"


def test_every_knob_says_what_it_is() -> None:
    knobs = {
        "init_from",
        "seed",
        "resume",
        "resume_force",
        "trunk",
        "warmup",
        "preview",
        "sweep_name",
    }
    assert {knob.name for knob in root_knobs()} == knobs
    for group in config_groups():
        for option in group.options:
            assert all(knob.comment for knob in option.knobs)


def test_the_config_reference_is_what_the_config_says() -> None:
    program = [sys.executable, str(ROOT / "scripts" / "config_reference.py"), "--check"]
    assert subprocess.run(program, capture_output=True, text=True).stderr == ""
    page = (ROOT / "docs" / "reference.md").read_text()
    for group in config_groups():
        for option in group.options:
            assert f"### `{group.name}={option.name}`" in page
            for knob in option.knobs:
                assert f"| `{knob.name}` |" in page
    for knob in root_knobs():
        assert f"| `{knob.name}` |" in page


def test_the_api_reference_is_what_the_docstrings_say() -> None:
    program = [sys.executable, str(ROOT / "scripts" / "api_reference.py"), "--check"]
    checked = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")
