"""Write docs/reference.md: every group, option, knob and key of the config, from its comments."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from coreai_opt.config.schemas.nodes import Node, nodes
from coreai_opt.config.schemas.settings import RootSettings
from coreai_opt.config.validation import OWN_NODES, described
from coreai_opt.plugin.settings import AnySweepSettings
from coreai_opt.plugin.sweeps.served import names_of
from coreai_opt.pruning.config.module import ModuleMagnitudePrunerConfig, OpMagnitudePrunerConfig
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.spec.schemes import PruningScheme
from coreai_opt.pruning.spec.spec import PruningSpec

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
# Written as it is in the middle of a sentence: a file, a folder, a symbol.
PLAIN_WORD = re.compile(r"(?:a|[A-Za-z-]{2,})[,.;:]?(?: |$)")
# What stands below `pruning`, from the outside in.
PRUNING_PARTS: dict[str, type[BaseModel]] = {
    "`pruning`": MagnitudePrunerConfig,
    "`pruning.global_config`, and every config in `module_type_configs` and "
    "`module_name_configs`": ModuleMagnitudePrunerConfig,
    "Every config in `op_type_config` and `op_name_config`": OpMagnitudePrunerConfig,
    "Every spec in `op_state_spec` and `module_state_spec`, as `weight`": PruningSpec,
}


@dataclass(frozen=True)
class Row:
    """A key of the config: its dotted path, its default, what stands behind it, and its schema."""

    key: str
    default: str
    text: str
    allowed: str


def page() -> str:
    """Return the whole page as Markdown."""
    common = [*_rows(CONF / "config.yaml", ""), *_directories()]
    parts = [HEAD, f"## {PARTS['']}\n", _table(common)]
    folders = {str(file.parent.relative_to(CONF)) for file in CONF.rglob("*.yaml")} - {"."}
    for group in sorted(folders, key=lambda name: (name.startswith("hydra"), name)):
        parts.append(f"## {PARTS.get(group, f'`{group}`')}\n")
        if sentence := _chosen(group):
            parts.append(sentence)
        parts += [_option(group, file) for file in sorted((CONF / group).glob("*.yaml"))]
        parts += _pruning_parts() if group == "pruning" else []
    parts += _other_apps()
    return "\n".join(parts).rstrip() + "\n"


def _chosen(group: str) -> str:
    """Return what the primary config says of a group, and chooses."""
    line = re.compile(rf"^  - (?:override )?{group}: (?P<option>\S+) +# (?P<comment>.+)$", re.M)
    match = line.search((CONF / "config.yaml").read_text(encoding="utf-8"))
    if match is None:
        return ""
    comment = match["comment"]
    default = "nothing" if match["option"] == "null" else f"`{match['option']}`"
    return f"{_sentence(comment)}; {default} by default.\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" if PLAIN_WORD.match(text) else text


def _option(group: str, file: Path) -> str:
    rows = list(_rows(file, group))
    text = file.read_text(encoding="utf-8")
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    summary = next((line for line in comments if not line.startswith("@")), "")
    lines = [f"### `{group}={file.stem}`\n"]
    if summary:
        lines.append(f"{_sentence(summary).rstrip('.')}.\n")
    if chosen := _overridden(file):
        lines.append(f"Chooses {', '.join(f'`{choice}`' for choice in chosen)}.\n")
    for below, node in _own_schemas(group, file, ""):
        prefix = ".".join(filter(None, ("" if "_global_" in text else group, below)))
        lines.append(f"Makes a `{node.target}`: `{prefix}._target_`.\n")
    if brought := _brought(group, file):
        lines.append(f"With all of {', '.join(f'`{group}={name}`' for name in brought)}.\n")
    if rows:
        lines.append(_table(rows))
    if aliases := _aliases(group, file):
        lines += ["| knob | sets |", "|---|---|"]
        lines += [
            f"| `{knob}` | {'<br>'.join(f'`{key}`' for key in keys)} |" for knob, keys in aliases
        ]
        lines.append("")
    return "\n".join(lines)


def _overridden(file: Path) -> list[str]:
    """Return what an option chooses in other groups."""
    choices = [item for item in _content(file).get("defaults") or [] if isinstance(item, dict)]
    words = [(key.split("/", 1), value) for one in choices for key, value in one.items()]
    return [f"{key[1]}={value}" for key, value in words if key[0] == "override "]


def _aliases(group: str, file: Path) -> list[tuple[str, list[str]]]:
    """Return the knobs of an option, each with the keys that take its value."""
    prefix = "" if _is_global(file) else ".".join(group.split("/"))
    content = {key: value for key, value in _content(file).items() if key not in SPECIAL}
    paths = [(".".join(filter(None, (prefix, *path))), value) for path, value in _leaves(content)]
    knobs = [
        key for key, value in content.items() if _is_global(file) and not isinstance(value, dict)
    ]
    found = [(knob, [path for path, value in paths if value == f"${{{knob}}}"]) for knob in knobs]
    return [(knob, keys) for knob, keys in found if keys]


def _is_global(file: Path) -> bool:
    return "# @package _global_" in file.read_text(encoding="utf-8")


def _directories() -> Iterator[Row]:
    """Yield the keys of Hydra's own that the primary config sets, and that a user may set."""
    comments = _comments(CONF / "config.yaml")
    for path, value in _leaves({"hydra": _content(CONF / "config.yaml")["hydra"]}):
        if path[1] in ("run", "sweep"):
            yield Row(".".join(path), _shown(value), comments[path], "")


def _pruning_parts() -> Iterator[str]:
    yield "### What stands below `pruning`\n"
    yield "From the outside in; `???` must be given, `{...}` has the defaults of a table below.\n"
    for title, model in PRUNING_PARTS.items():
        yield f"{title}:\n"
        yield _table([_field(name, info) for name, info in model.model_fields.items()])
    for name in PruningScheme.list_registry_keys():
        fields = PruningScheme.get_class(name).model_fields
        yield f"A `pruning_scheme` with `type: {name}`{':' if fields else ' takes nothing else.'}\n"
        if fields:
            yield _table([_field(key, info) for key, info in fields.items()])


def _other_apps() -> Iterator[str]:
    yield "## Sweeps of other apps\n"
    yield "[any-app.md](any-app.md) explains them.\n"
    yield "### `hydra/sweeper=grid` in any other app\n"
    fields = AnySweepSettings.model_fields
    yield _table([_field(f"hydra.sweeper.{name}", info) for name, info in fields.items()])
    yield "### Options with the settings of `train.py` under names of their own\n"
    yield "| option | has the settings of |\n|---|---|"
    for group in ("hydra/launcher", "hydra/sweeper"):
        for name in filter(lambda one: one.startswith("coreai_"), names_of(group)):
            own = name.removeprefix("coreai_")
            yield f"| `{group}={name}` | `{group}={own}` |"


def _field(name: str, info: FieldInfo) -> Row:
    value = None if info.is_required() else info.get_default(call_default_factory=True)
    default = "???" if info.is_required() else _plain_default(value)
    return Row(name, default, "", info.description or "")


def _plain_default(value: Any) -> str:
    if isinstance(value, PruningScheme):
        return f"{{type: {value.registry_key()}}}"
    if isinstance(value, BaseModel):
        return "{...}"
    if isinstance(value, dict) and value:
        return f"{{{', '.join(f'{key}: {{...}}' for key in value)}}}"
    return _shown(list(value) if isinstance(value, tuple) else value)


def _brought(group: str, file: Path) -> list[str]:
    """Return the options of the same group that an option begins with."""
    names = [item for item in _content(file).get("defaults") or [] if isinstance(item, str)]
    plain = [name.partition("@")[0] for name in names]
    return [name for name in plain if (_file(group, name)).is_file()]


def _rows(file: Path, group: str) -> Iterator[Row]:
    """Yield the keys of a file, and those that its schema has besides."""
    content, comments = _content(file), _comments(file)
    is_global = _is_global(file)
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
    types = {key[:-1]: str(value) for key, (_, value) in leaves.items() if key[-1] == "type"}
    allowed = {".".join(key): _allowed(schemas, key, types.get(key[:-1])) for key in leaves}
    # A knob is allowed to be what the key is that takes its value.
    for key, (_, value) in leaves.items():
        if str(value) in knobs:
            allowed[knobs[str(value)]] = allowed[".".join(key)]
    # What an option begins with says it of the keys that this one gives another default.
    before = [row for one in _brought(group, file) for row in _rows(_file(group, one), group)]
    texts = {row.key: row.text for row in before}
    for row in before:
        if row.key in allowed:
            allowed[row.key] = allowed[row.key] or row.allowed
    for key, (path, value) in leaves.items():
        if str(value) not in knobs:
            name, ends = ".".join(key), range(len(path), 0, -1)
            found = (comments[path[:end]] for end in ends if path[:end] in comments)
            text = next(found, texts.get(name, ""))
            if name.endswith("_target_"):
                text = "the class, whose other arguments may be added"
            yield Row(name, _shown(value), text, allowed[name])
    if any(str(item).startswith("/schema/") for item in content.get("defaults") or []):
        for below, node in schemas.items():
            listed = [f"{key}." for key in allowed]
            for row in _of_schema(below, node):
                if not any(key.startswith(f"{row.key}.") for key in listed):
                    yield row


def _schemas(group: str, file: Path, prefix: str) -> Iterator[tuple[str, Node]]:
    """Yield the schemas that an option begins with, those of the options before it as well."""
    for name in _brought(group, file):
        yield from _schemas(group, _file(group, name), prefix)
    yield from _own_schemas(group, file, prefix)


def _own_schemas(group: str, file: Path, prefix: str) -> Iterator[tuple[str, Node]]:
    items = [item for item in _content(file).get("defaults") or [] if isinstance(item, str)]
    for item in items:
        name, _, package = item.partition("@")
        for node in nodes():
            if name == f"/schema/{node.group}/{node.name}":
                yield ".".join(filter(None, (prefix, package.removeprefix("_here_")))), node


def _of_schema(below: str, node: Node) -> Iterator[Row]:
    for field, info in node.model.model_fields.items():
        if info.default is PydanticUndefined and info.default_factory is None:
            continue  # a value of the file, or one that is made of others
        default = info.get_default(call_default_factory=True)
        if isinstance(default, bool | int | float | str | list | tuple | None):
            value = list(default) if isinstance(default, tuple) else default
            yield Row(f"{below}.{field}", _shown(value), "", info.description or "")


def _allowed(schemas: dict[str, Node], key: tuple[str, ...], kind: str | None) -> str:
    if "pruning_scheme" in key:
        names = PruningScheme.list_registry_keys()
        if kind not in names:
            return ""
        if key[-1] == "type":
            return f"{', '.join(names[:-1])} or {names[-1]}"
        return described(PruningScheme.get_class(kind), key[-1:]) or ""
    for below, node in schemas.items():
        start = tuple(below.split("."))
        if key[: len(start)] == start and key[len(start) :]:
            return described(node.model, key[len(start) :]) or ""
    if key[0] in OWN_NODES:
        return described(OWN_NODES[key[0]], key[1:]) or ""
    return described(RootSettings, key) or ""


def _file(group: str, option: str) -> Path:
    return CONF / group / f"{option}.yaml"


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
    cells = [
        (f"`{row.key}`", f"`{row.default}`" if row.default else "", *_said(row)) for row in rows
    ]
    table = [("key", "default", "what it is", "allowed"), *cells]
    # A column that says nothing is left out.
    kept = [at for at in range(4) if at < 2 or any(line[at] for line in cells)]
    lines = [[line[at].replace("|", "\\|") for at in kept] for line in table]
    lines.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _said(row: Row) -> tuple[str, str]:
    return ("" if row.text == row.allowed else row.text), row.allowed


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
