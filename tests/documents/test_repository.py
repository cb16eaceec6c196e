"""The habits of the repository: exports, sizes, links, and that what is documented works."""

import ast
import importlib
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from coreai_opt.config.groups import config_groups, root_knobs
from tests.conftest import ROOT
from tests.helpers.documents import BLOCK, PAGES

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
SOURCES = [
    *sorted((ROOT / "coreai_opt").rglob("*.py")),
    *sorted((ROOT / "lightning_callbacks").rglob("*.py")),
    *sorted((ROOT / "scripts").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
    ROOT / "train.py",
]


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


def test_files_and_functions_stay_short() -> None:
    long = []
    for file in SOURCES:
        text = file.read_text()
        lines = len(text.splitlines())
        if lines > 400:
            long.append(f"{file}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                docstring = ast.get_docstring(node) or ""
                length = node.end_lineno - node.body[0].lineno + 1 - len(docstring.splitlines())
                if length > 40:
                    long.append(f"{file}: {node.name} has {length} lines")
    assert long == []


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


def test_the_files_and_rooms_of_the_architecture_page_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    files = re.findall(r"`([\w/]+\.(?:py|yaml))`", page)
    rooms = {
        room
        for row in re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE)
        for room in row.split(", ")
    }
    assert len(files) >= 15
    assert [file for file in files if not (ROOT / file).is_file()] == []
    named = {room.strip("`/").removeprefix("coreai_opt/") for room in rooms}
    there = {folder.parent.relative_to(ROOT) for folder in ROOT.glob("coreai_opt/*/__init__.py")}
    assert {folder.name for folder in there} <= named


def test_what_clusters_do_is_backed_by_tests() -> None:
    page = (ROOT / "docs" / "clusters.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    written = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert [name for name in named if f"def {name}(" not in written] == []


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
    exec(compile(block["code"], "documented", "exec"), names)
    rows = re.findall(r"^\| (\d+) \| (\S+) \|", section, re.MULTILINE)
    value: float | None = None
    for step, documented in rows:
        value = names["schedule"].compute_sparsity(int(step), float(target[1]), value)
        assert value == pytest.approx(float(documented), rel=0, abs=1e-12), step
    assert len(rows) >= 6


def test_the_picture_of_the_schedules_is_what_they_do() -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra demo")
    drawing = runpy.run_path(str(ROOT / "scripts" / "drawings" / "schedules.py"))
    with image.open(drawing["PICTURE"]) as picture:
        assert picture.info["Comment"] == drawing["shown"](), "python scripts/drawings/schedules.py"


def test_every_knob_says_what_it_is() -> None:
    knobs = {"init_from", "seed", "resume", "resume_force", "warmup", "trunk", "preview"}
    knobs |= {"sweep_name", "deploy"}
    assert {knob.name for knob in root_knobs()} == knobs
    for group in config_groups():
        for option in group.options:
            assert all(knob.comment for knob in option.knobs)


def test_the_config_reference_is_what_the_config_says() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(ROOT / "scripts" / "config_reference.py"))["page"]()
    for group in config_groups():
        for option in group.options:
            assert f"### `{group.name}={option.name}`" in page
            for knob in option.knobs:
                assert f"| `{knob.name}` |" in page
    for knob in root_knobs():
        assert f"| `{knob.name}` |" in page


def test_the_api_reference_is_what_the_docstrings_say() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(ROOT / "scripts" / "api_reference.py"))["page"]()
