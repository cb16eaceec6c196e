"""The documentation as a site: built from the pages, with links that lead somewhere."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")

CONFIG = ROOT / "scripts" / "mkdocs.yml"
HOOKS = ROOT / "scripts" / "mkdocs_hooks.py"


@pytest.fixture(scope="module")
def hooks() -> Any:
    return SimpleNamespace(**runpy.run_path(str(HOOKS)))


def build(config: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    """Build a site as scripts/docs does, without an installation."""
    words = ["build", "--strict", "--config-file", str(config), "--site-dir", str(out)]
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", *words],
        env={**os.environ, "DISABLE_MKDOCS_2_WARNING": "true", "NO_MKDOCS_2_WARNING": "true"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(CONFIG, out)
    assert done.returncode == 0, done.stderr
    return out


BROKEN = {
    "record.md#nowhere": "does not contain an anchor '#nowhere'",
    "nothing.md": "the target is not found",
    "/record.md": "contains an absolute link",
}


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    for folder in ("docs", "scripts"):
        (tmp_path / folder).mkdir()
    # The same settings with two pages of their own, and nothing from elsewhere.
    settings = yaml.safe_load(CONFIG.read_text())
    for key in ("hooks", "watch", "extra_css"):
        del settings[key]
    settings["theme"] = {"name": "mkdocs"}
    settings["nav"] = ["index.md", "record.md"]
    config = tmp_path / "scripts" / "mkdocs.yml"
    config.write_text(yaml.safe_dump(settings))
    (tmp_path / "docs" / "record.md").write_text("# Record\n")
    page = tmp_path / "docs" / "index.md"
    page.write_text("# Start\n\n[a](record.md#record)\n")
    assert build(config, tmp_path / "site").returncode == 0
    page.write_text("# Start\n\n" + "\n".join(f"[a]({link})" for link in BROKEN))
    done = build(config, tmp_path / "site")
    assert done.returncode == 1
    assert [said for said in BROKEN.values() if said not in done.stderr] == []


def test_the_script_builds_as_the_tests_do() -> None:
    script = (ROOT / "scripts" / "docs").read_text()
    assert "words=(build --strict " in script
    # MkDocs counts no warnings then, and a strict build with any of them is fine.
    assert re.findall(r"^exec .*(?:--quiet|-q\b).*", script, re.MULTILINE) == []


def test_numbers_of_a_list_go_on_behind_code(site: Path) -> None:
    page = (site / "own-model.html").read_text(encoding="utf-8")
    assert re.findall(r'<ol(?: start="(\d)")?>', page)[:4] == ["", "2", "3", "4"]


@pytest.mark.parametrize(
    ("folder", "text", "expected"),
    [
        ("", "[a](docs/api.md#x) ![b](docs/images/c.png)", "[a](api.md#x) ![b](images/c.png)"),
        ("docs", "[a](api.md) [b](../README.md#start)", "[a](api.md) [b](index.md#start)"),
        (".github", "[a](../docs/api.md) [b](SECURITY.md)", "[a](api.md) [b](security.md)"),
        ("docs", "[code](../train.py) and [data](benchmarks)", "code and data"),
        ("docs", "[a](https://b.org/c.md) [d](#e)", "[a](https://b.org/c.md) [d](#e)"),
        ("docs", "```\n[a](../train.py)\n```", "```\n[a](../train.py)\n```"),
    ],
    ids=["from the README", "to the README", "from .github", "to no page", "elsewhere", "code"],
)
def test_links_lead_to_where_pages_are_on_the_site(
    hooks: Any, folder: str, text: str, expected: str
) -> None:
    assert hooks.relinked(text, folder, "") == expected


def test_all_pages_are_there_and_in_the_menu(site: Path, hooks: Any) -> None:
    pages = {file.stem for file in (ROOT / "docs").glob("*.md")}
    pages |= {
        Path(name).stem for name, source in hooks.ELSEWHERE.items() if (ROOT / source).is_file()
    }
    assert {file.stem for file in site.glob("*.html")} - {"404"} == pages


class Addresses(HTMLParser):
    """What a page loads when it is opened."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        is_style = tag == "link" and named.get("rel") == "stylesheet"
        source = named.get("href") if is_style else named.get("src")
        if source:
            self.loaded.append(source)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.glob("[!4]*.html"):  # 404.html does not know where it is shown
        loaded = Addresses(page).loaded
        assert loaded
        assert [one for one in loaded if "//" in one] == []
        assert [one for one in loaded if not (site / one.partition("?")[0]).is_file()] == []


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield str(key)
            yield from keys(child)
    elif isinstance(value, list):
        for child in value:
            yield from keys(child)


YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=f"{page.name}-{index}")
        for page in sorted((ROOT / "docs").glob("*.md"))
        for index, text in enumerate(YAML.findall(page.read_text()))
    ],
)
def test_documented_yaml_can_be_read(text: str) -> None:
    # What they compose to is tested where the pages are: plugin.md, extending.md.
    assert list(keys(yaml.safe_load(text)))
