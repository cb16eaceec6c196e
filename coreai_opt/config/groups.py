"""What the config tree offers: groups, options and root knobs, read from its files.

Help and error messages need it without composing a config.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from coreai_opt.config.locations import conf_dir

KNOB = re.compile(r"^(?P<name>[a-z_]+):\s*(?P<value>[^#\s][^#]*?)\s*#\s*(?P<comment>.+)$")


@dataclass(frozen=True)
class Knob:
    """A value at the root of the config, with the comment that stands behind it."""

    name: str
    default: str
    comment: str


@dataclass(frozen=True)
class Option:
    """One file of a group: its name, its first comment and the knobs it puts at the root."""

    name: str
    summary: str
    knobs: list[Knob] = field(default_factory=list)


@dataclass(frozen=True)
class ConfigGroup:
    """A directory of the config tree."""

    name: str
    options: list[Option]

    def names(self) -> list[str]:
        """Return the names of its options."""
        return [option.name for option in self.options]


@cache
def config_groups() -> list[ConfigGroup]:
    """Return the groups of the config tree in alphabetical order, ``hydra/...`` left out."""
    inner = conf_dir().iterdir()
    folders = sorted(path for path in inner if path.is_dir() and path.name != "hydra")
    return [
        ConfigGroup(folder.name, [_option(file) for file in sorted(folder.glob("*.yaml"))])
        for folder in folders
    ]


def find_group(name: str) -> ConfigGroup | None:
    """Return the group of that name, None when there is none."""
    return next((group for group in config_groups() if group.name == name), None)


def root_knobs() -> list[Knob]:
    """Return the knobs that the primary config itself has."""
    return _knobs((conf_dir() / "config.yaml").read_text(encoding="utf-8"))


def _option(file: Path) -> Option:
    text = file.read_text(encoding="utf-8")
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    summary = next((line for line in comments if not line.startswith("@package")), "")
    is_global = "# @package _global_" in text
    return Option(file.stem, summary, _knobs(text) if is_global else [])


def _knobs(text: str) -> list[Knob]:
    found = (KNOB.match(line) for line in text.splitlines())
    return [Knob(m["name"], m["value"], m["comment"]) for m in found if m is not None]
