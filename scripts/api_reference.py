"""Write docs/api.md, the reference of the public names, from their docstrings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
PACKAGES = [
    "coreai_opt.pruning",
    "coreai_opt.pruning.config",
    "coreai_opt.pruning.spec",
    "coreai_opt.common",
    "coreai_opt.deploy",
    "coreai_opt.huggingface",
    "coreai_opt.runs",
    "lightning_callbacks",
]
MODULES = ["coreai_opt.pruning.masks", "coreai_opt.pruning.errors"]
HEAD = """# API reference

Written from the docstrings by `python scripts/api_reference.py`; a test says when it is out of
date.
"""
FIELDS = ("parameters", "attributes")
OUTCOMES = ("returns", "raises", "warns", "yields")
TITLES = {"parameters": "Args", "attributes": "Attributes"}
# What the bases outside of this project bring along.
HIDDEN = {"model_config", "forward", "extra_repr", "get_extra_state", "set_extra_state"}


def page() -> str:
    """Return the whole page as Markdown."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser="google")
    for package in ("coreai_opt", "lightning_callbacks"):
        loader.load(package)
    loader.resolve_aliases(implicit=True)
    parts = [HEAD]
    written: dict[str, str] = {}
    for name in [*PACKAGES, *MODULES]:
        module = loader.modules_collection[name]
        parts.append(f"## {name}\n\n{_summary(module)}\n")
        for exported in _exports(module):
            parts.append(_entry(name, exported, written))
    return "\n".join(parts).rstrip() + "\n"


def _exports(module: Any) -> Iterator[Any]:
    for name in module.exports or []:
        member = module.members[str(name)]
        yield member.final_target if member.is_alias else member


def _entry(package: str, member: Any, written: dict[str, str]) -> str:
    title = f"{package}.{member.name}"
    if member.path in written:
        return f"### {member.name}\n\nThe same as [{written[member.path]}](#{_anchor(member)}).\n"
    if not (member.is_class or member.is_function):
        return ""
    written[member.path] = title
    lines = [f'<a id="{_anchor(member)}"></a>', "", f"### {member.name}", ""]
    if member.is_function:
        lines += [f"`{_signature(member)}`", ""]
    lines += _described(member)
    if member.is_class:
        for method in _methods(member):
            lines += [f"#### {member.name}.{method.name}", ""]
            if method.is_function:
                lines += [f"`{_signature(method)}`", ""]
            lines += _described(method)
    return "\n".join(lines)


def _methods(kind: Any) -> Iterator[Any]:
    for name, member in kind.members.items():
        is_public = not name.startswith("_") and name not in HIDDEN and not name.startswith("on_")
        is_callable = member.is_function or "property" in member.labels
        if is_public and is_callable and member.docstring:
            yield member


def _described(member: Any) -> list[str]:
    if member.docstring is None:
        return []
    lines: list[str] = []
    for section in member.docstring.parse("google", warnings=False):
        kind = section.kind.value
        if kind == "text":
            lines += [_plain(section.value), ""]
        elif kind in FIELDS:
            lines += [f"{TITLES[kind]}:", ""]
            lines += [f"- `{item.name}`: {_flat(item.description)}" for item in section.value]
            lines += [""]
        elif kind in OUTCOMES:
            lines += _outcome(kind, section.value)
        elif kind == "examples":
            for _, text in section.value:
                lines += ["```pycon", text, "```", ""]
        elif kind == "admonition":
            contents = section.value.contents
            lines += ["```pycon", contents, "```", ""] if ">>>" in contents else [contents, ""]
    return lines


def _outcome(kind: str, items: Any) -> list[str]:
    if kind in ("returns", "yields"):
        text = " ".join(_flat(item.description) for item in items)
        return [f"{kind.capitalize()}: {text}", ""]
    listed = [f"- `{item.annotation}`: {_flat(item.description)}" for item in items]
    return [f"{kind.capitalize()}:", "", *listed, ""]


def _signature(function: Any) -> str:
    shown = []
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        star = {"variadic positional": "*", "variadic keyword": "**"}.get(parameter.kind.value, "")
        annotation = f": {parameter.annotation}" if parameter.annotation is not None else ""
        default = f" = {parameter.default}" if parameter.default is not None and not star else ""
        shown.append(f"{star}{parameter.name}{annotation}{default}")
    returns = f" -> {function.returns}" if function.returns is not None else ""
    return f"{function.name}({', '.join(shown)}){returns}"


def _summary(module: Any) -> str:
    return _plain(module.docstring.value) if module.docstring else ""


def _flat(text: str) -> str:
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    return text.replace("``", "`")


def _anchor(member: Any) -> str:
    return str(member.path).replace(".", "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
