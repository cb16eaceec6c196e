"""Pages and their code blocks, each with what tests it."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
]
BLOCK = re.compile(
    r"(?:^<!-- tested by (?P<file>\S+) -->\n\n)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```"
    r"(?P<output>\n\n```text)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        tested_by: the file that its marker names, None without a marker.
        has_output: whether the page shows what the commands print.
    """

    page: Path
    index: int
    language: str
    code: str
    tested_by: str | None
    has_output: bool

    def __str__(self) -> str:
        return f"{self.page.name}-{self.index}"


def blocks(language: str) -> list[Block]:
    """Return the blocks of a language, on all pages."""
    return [
        Block(page, index, language, match["code"], match["file"], bool(match["output"]))
        for page in PAGES
        for index, match in enumerate(BLOCK.finditer(page.read_text()))
        if match["language"] == language
    ]
