"""Hooks of the documentation site: pages outside ``docs/``, and links out of it."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

# By the name that a page has on the site: where it lies in the repository.
ELSEWHERE = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": ".github/CONTRIBUTING.md",
    "security.md": ".github/SECURITY.md",
    "examples.md": "examples/README.md",
}
STYLE = "mkdocs.css"

FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and the style sheet."""
    style = (ROOT / "scripts" / STYLE).read_text(encoding="utf-8")
    files.append(File.generated(config, STYLE, content=style))
    for name, source in ELSEWHERE.items():
        if (ROOT / source).is_file():
            content = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where pages are on the site."""
    name = page.file.src_uri
    folder = posixpath.dirname(ELSEWHERE.get(name, f"docs/{name}"))
    here = posixpath.dirname(name)
    return relinked(markdown, folder, here)


def relinked(markdown: str, folder: str, here: str) -> str:
    """Return a text from a folder of the repository with its links as they are on the site.

    Code in fences stays. ``here`` is where its page is on the site.
    """
    parts = FENCE.split(markdown)
    rewrite = _rewriter(folder, here)
    return "".join(part if part.startswith("```") else LINK.sub(rewrite, part) for part in parts)


def _rewriter(folder: str, here: str) -> Callable[["re.Match[str]"], str]:
    pages = {source: name for name, source in ELSEWHERE.items()}

    def rewrite(link: "re.Match[str]") -> str:
        path, anchor = link["path"], link["anchor"] or ""
        if not path or "://" in path:
            return link[0]
        target = posixpath.normpath(posixpath.join(folder, path))
        if target.startswith("docs/") and not (ROOT / target).is_dir():
            name = target.removeprefix("docs/")
        elif target in pages:
            name = pages[target]
        else:
            return link["text"]  # a file of the repository, which the site does not have
        relative = posixpath.relpath(name, here or ".")
        return f"{link['image']}[{link['text']}]({relative}{anchor})"

    return rewrite
