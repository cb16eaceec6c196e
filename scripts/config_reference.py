"""Write docs/reference.md: every group, option, knob and key of the config, from its own comments.

python scripts/config_reference.py          writes docs/reference.md
python scripts/config_reference.py --check  exits 1 when docs/reference.md is out of date
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import PydanticUndefined

from coreai_opt.experiment.nodes import Node, nodes
from coreai_opt.experiment.settings import RootSettings
from coreai_opt.experiment.validation import OWN_NODES, described

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "reference.md"
HEAD = """# Groups, options, knobs and keys

Everything that the command line takes, with defaults, units and ranges. Written from the comments
and schemas of the config by `python scripts/config_reference.py`; a test says when it is out of
date.

`GROUP=OPTION` chooses, `KEY=VALUE` sets. A *knob* stands at the root of the config, and the nodes
that need it refer to it: `power=2` sets `schedule.power`. A default of `${name}` is the value of
that key. What is allowed is what an error says of it. Any key of a class that is not listed is
added with a plus: `+trainer.KEY=VALUE`.
"""
PARTS = {
    "": "In every config",
    "hydra/launcher": "Where the runs of a sweep run: `hydra/launcher`",
    "hydra/sweeper": "How `-m` makes runs: `hydra/sweeper`",
    "hydra/sweeper/sampler": "How a search chooses points: `hydra/sweeper/sampler`",
}
KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z_]\w*):(?P<rest>.*)$")
SPECIAL = ("defaults", "hydra")


@dataclass(frozen=True)
class Row:
    """A key of the config: its dotted path, its default, what stands behind it, and its schema."""

    key: str
    default: str
    text: str
    allowed: str


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [HEAD, f"## {PARTS['']}\n", _table(list(_rows(CONF / "config.yaml", "")))]
    folders = {str(file.parent.relative_to(CONF)) for file in CONF.rglob("*.yaml")} - {"."}
    for group in sorted(folders, key=lambda name: (name.startswith("hydra"), name)):
        parts.append(f"## {PARTS.get(group, f'`{group}`')}\n")
        if sentence := _chosen(group):
            parts.append(sentence)
        parts += [_option(group, file) for file in sorted((CONF / group).glob("*.yaml"))]
    return "\n".join(parts).rstrip() + "\n"


def _chosen(group: str) -> str:
    """Return what the primary config says of a group, and chooses."""
    line = re.compile(rf"^  - (?:override )?{group}: (?P<option>\S+) +# (?P<comment>.+)$", re.M)
    match = line.search((CONF / "config.yaml").read_text(encoding="utf-8"))
    if match is None:
        return ""
    comment = match["comment"]
    default = "nothing" if match["option"] == "null" else f"`{match['option']}`"
    return f"{comment[:1].upper()}{comment[1:]}; {default} by default.\n"


def _option(group: str, file: Path) -> str:
    rows = list(_rows(file, group))
    text = file.read_text(encoding="utf-8")
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    summary = next((line for line in comments if not line.startswith("@")), "")
    lines = [f"### `{group}={file.stem}`\n"]
    if summary:
        lines.append(f"{summary[:1].upper()}{summary[1:].rstrip('.')}.\n")
    if brought := _brought(group, file):
        lines.append(f"With all of {', '.join(f'`{group}={name}`' for name in brought)}.\n")
    return "\n".join([*lines, _table(rows)]) if rows else "\n".join(lines)


def _brought(group: str, file: Path) -> list[str]:
    """Return the options of the same group that an option begins with."""
    names = [item for item in _content(file).get("defaults") or [] if isinstance(item, str)]
    plain = [name.partition("@")[0] for name in names]
    return [name for name in plain if (CONF / group / f"{name}.yaml").is_file()]


def _rows(file: Path, group: str) -> Iterator[Row]:
    """Yield the keys of a file, and those that its schema has besides."""
    content, comments = _content(file), _comments(file)
    is_global = "# @package _global_" in file.read_text(encoding="utf-8")
    prefix = "" if is_global else ".".join(group.split("/"))
    schemas = dict(_schemas(group, file, prefix))
    leaves = {
        tuple(filter(None, (*prefix.split("."), *path))): (path, value)
        for path, value in _leaves({key: content[key] for key in content if key not in SPECIAL})
        if path
    }
    knobs = {
        f"${{{key}}}": key
        for key, value in content.items()
        if is_global and not isinstance(value, dict)
    }
    allowed = {".".join(key): _allowed(schemas, key) for key in leaves}
    # A knob is allowed to be what the key is that takes its value.
    for key, (_, value) in leaves.items():
        if str(value) in knobs:
            allowed[knobs[str(value)]] = allowed[".".join(key)]
    for key, (path, value) in leaves.items():
        if str(value) not in knobs:
            name, ends = ".".join(key), range(len(path), 0, -1)
            text = next((comments[path[:end]] for end in ends if path[:end] in comments), "")
            if name.endswith("_target_"):
                text = "the class, whose other arguments may be added"
            yield Row(name, _shown(value), text, allowed[name])
    if any(str(item).startswith("base_") for item in content.get("defaults") or []):
        for below, node in schemas.items():
            yield from (row for row in _of_schema(below, node) if row.key not in allowed)


def _schemas(group: str, file: Path, prefix: str) -> Iterator[tuple[str, Node]]:
    """Yield the schemas that an option begins with, those of the options before it as well."""
    for item in _content(file).get("defaults") or []:
        if not isinstance(item, str):
            continue
        name, _, package = item.partition("@")
        if (CONF / group / f"{name}.yaml").is_file():
            yield from _schemas(group, CONF / group / f"{name}.yaml", prefix)
        named = name.removeprefix("base_")
        for node in nodes():
            if name.startswith("base_") and (node.group, node.name) == (group, named):
                yield ".".join(filter(None, (prefix, package))), node


def _of_schema(below: str, node: Node) -> Iterator[Row]:
    for field, info in node.model.model_fields.items():
        if info.default is PydanticUndefined and info.default_factory is None:
            continue  # a value of the file, or one that is made of others
        default = info.get_default(call_default_factory=True)
        if isinstance(default, bool | int | float | str | list | tuple | None):
            value = list(default) if isinstance(default, tuple) else default
            yield Row(f"{below}.{field}", _shown(value), "", info.description or "")


def _allowed(schemas: dict[str, Node], key: tuple[str, ...]) -> str:
    if "pruning_scheme" in key:
        return ""  # several classes may stand there; the comments say it
    for below, node in schemas.items():
        start = tuple(below.split("."))
        if key[: len(start)] == start and key[len(start) :]:
            return described(node.model, key[len(start) :]) or ""
    if key[0] in OWN_NODES:
        return described(OWN_NODES[key[0]], key[1:]) or ""
    return described(RootSettings, key) or ""


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, (*path, str(key)))
    else:
        yield path, value


def _comments(file: Path) -> dict[tuple[str, ...], str]:
    """Return the comments behind keys, by the path of the key in the file."""
    found: dict[tuple[str, ...], str] = {}
    stack: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        match = KEY.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        stack = [(depth, name) for depth, name in stack if depth < indent]
        stack.append((indent, match["name"]))
        comment = re.search(r"(?:^|\s)# *(.+)$", match["rest"])
        if comment is not None:
            found[tuple(name for _, name in stack)] = comment[1]
    return found


def _content(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return text.removesuffix("...").strip()


def _table(rows: list[Row]) -> str:
    lines = ["| key | default | what it is | allowed |", "|---|---|---|---|"]
    for row in rows:
        default = f"`{row.default}`" if row.default else ""
        text = "" if row.text == row.allowed else row.text
        cells = (f"`{row.key}`", default, text, row.allowed)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.relative_to(ROOT)} is out of date: python scripts/config_reference.py")


if __name__ == "__main__":
    main()
