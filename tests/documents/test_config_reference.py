"""The reference of the config: nothing is left out, and the ranges that it gives are enforced."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

from coreai_opt.config.schemas.nodes import nodes
from coreai_opt.config.schemas.settings import RootSettings
from coreai_opt.config.validation import OWN_NODES
from coreai_opt.pruning.spec.schemes import PruningScheme
from coreai_opt.pruning.spec.spec import PruningSpec
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "config_reference.py"
CONF = ROOT / "conf"
RANGE = re.compile(r"(?P<sign>>=|>) (?P<bound>-?\d+)|(?P<low>\d+) to (?P<high>2\*\*32 - 1|\d+)")
MODELS: list[type[BaseModel]] = [
    *dict.fromkeys(node.model for node in nodes()),
    RootSettings,
    *OWN_NODES.values(),
    PruningSpec,
    *map(PruningScheme.get_class, PruningScheme.list_registry_keys()),
]
TINY = 2.0**-20


@pytest.fixture(scope="module")
def reference() -> Any:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def kinds(annotation: Any) -> str:
    return str(annotation).replace("<class '", "").replace("'>", "")


def numbers() -> Iterator[Any]:
    """Every field that holds numbers, once for the class that has it."""
    for model in MODELS:
        for name, info in model.model_fields.items():
            if re.search(r"\b(int|float)\b", kinds(info.annotation)):
                yield pytest.param(model, name, id=f"{model.__name__}.{name}")


def is_refused(model: type[BaseModel], field: str, value: float) -> bool:
    """Return whether a class refuses a value of one of its fields, or a list that is full of it."""
    info = model.model_fields[field]
    is_list = re.search(r"\b(list|tuple)\b", kinds(info.annotation))
    default = info.get_default(call_default_factory=True)
    length = len(default) if isinstance(default, list | tuple) else 1
    given = [value] * length if is_list else value
    if field == "levels":
        given = [value, 1.0]  # the last is 1
    try:
        model.model_validate({field: given})
    except ValidationError as error:
        return any(one["loc"][:1] == (field,) for one in error.errors())
    return False


def edges(text: str, is_int: bool) -> Iterator[tuple[float, bool]]:
    """Yield the numbers around the ends of a documented range, and whether they lie in it."""
    step = 1 if is_int else TINY
    for found in RANGE.finditer(text):
        if found["sign"]:
            bound = int(found["bound"])
            yield bound, found["sign"] == ">="
            yield bound - step, False
            yield bound + step, True
        else:
            low = int(found["low"])
            high = 2**32 - 1 if "**" in found["high"] else int(found["high"])
            yield from [(low, True), (high, True), (low - step, False), (high + step, False)]


@pytest.mark.parametrize(("model", "field"), list(numbers()))
def test_documented_ranges_are_enforced(model: type[BaseModel], field: str) -> None:
    info = model.model_fields[field]
    is_int = "float" not in kinds(info.annotation)
    text = info.description or ""
    special = {int(number) for number in re.findall(r"(-\d+) (?:=|for)", text)}
    for value, is_allowed in edges(text, is_int):
        if value not in special:
            assert is_refused(model, field, value) != is_allowed, value
    for value in special:
        assert not is_refused(model, field, value)


@pytest.mark.parametrize(("model", "field"), list(numbers()))
def test_enforced_ranges_are_documented(model: type[BaseModel], field: str) -> None:
    text = model.model_fields[field].description or ""
    if is_refused(model, field, -1000):
        assert re.search(r">|\d to", text), text


def rows(reference: Any) -> Iterator[tuple[Path, Any]]:
    for file in sorted(CONF.rglob("*.yaml")):
        group = str(file.parent.relative_to(CONF))
        for row in reference._rows(file, "" if group == "." else group):
            yield file, row


def test_comments_give_the_ranges_of_the_classes(reference: Any) -> None:
    compared = 0
    for file, row in rows(reference):
        commented, enforced = RANGE.findall(row.text), RANGE.findall(row.allowed)
        if commented and enforced:
            assert commented == enforced, (file.name, row)
            compared += 1
    assert compared >= 20


def test_every_key_of_the_tree_has_its_row(reference: Any) -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for file, row in rows(reference):
        is_delta = file.parent.name == "experiment" or file.stem == "none"
        assert row.text or row.allowed or is_delta, (file.name, row.key)
        assert f"| `{row.key}` | " in page
    for file in sorted((CONF / "pruning").glob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(file))
        assert isinstance(content, dict)
        for knob in [key for key in content if key not in ("defaults", "pruning")]:
            below = page.partition(f"### `pruning={file.stem}`\n")[2].partition("\n### ")[0]
            assert f"| `{knob}` | " in below


def test_no_key_stands_twice_in_an_option(reference: Any) -> None:
    for section in reference.page().split("\n### "):
        keys = re.findall(r"^\| (`[\w.]+`) \| ", section.partition("| knob |")[0], re.MULTILINE)
        if not section.startswith("What stands below"):
            assert len(keys) == len(set(keys)), section.splitlines()[0]
            assert not any(f"{one[:-1]}." in other for one in keys for other in keys), keys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what it is", "What it is"),
        ("a file", "A file"),
        ("n of every m", "n of every m"),
        ("metrics.csv, and more", "metrics.csv, and more"),
        ("outputs/ for runs", "outputs/ for runs"),
        ("in rounds, at milestones", "In rounds, at milestones"),
    ],
)
def test_names_keep_their_small_letters(reference: Any, text: str, expected: str) -> None:
    assert reference._sentence(text) == expected
