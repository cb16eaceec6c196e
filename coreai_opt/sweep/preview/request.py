"""Request for a preview on the command line: ``preview=true``, ``preview.png=true``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from coreai_opt.config.errors import ConfigError, Problem

__all__ = ["PNG", "PreviewRequest", "key_of", "read_request"]

KEY, PNG = "preview", "preview.png"
TRUTH = re.compile(r"(['\"]?)(true|false)\1", re.IGNORECASE)


@dataclass(frozen=True)
class PreviewRequest:
    """Preview that a command line asks for.

    Attributes:
        is_wanted: whether to show the runs instead of running them.
        png: whether to draw the picture as well.
        overrides: the others, as typed.
    """

    is_wanted: bool
    png: bool
    overrides: tuple[str, ...]


def read_request(overrides: Iterable[str]) -> PreviewRequest:
    """Return the request for a preview in overrides, and the other overrides.

    The picture alone asks for the preview too; of two for one key the last counts.

    Raises:
        ConfigError: a value that is neither true nor false, or a key that is not there.

    Example:
        >>> read_request(["power=2", "preview.png=True"])
        PreviewRequest(is_wanted=True, png=True, overrides=('power=2',))
        >>> read_request(["preview=false", "power=2"])
        PreviewRequest(is_wanted=False, png=False, overrides=('power=2',))
    """
    values: dict[str, bool] = {}
    rest: list[str] = []
    problems: list[Problem] = []
    for text in overrides:
        key, value = key_of(text), text.partition("=")[2].strip()
        if key.partition(".")[0] != KEY:
            rest.append(text)
        elif key not in (KEY, PNG):
            sentence = f"{text}: there is no key {key!r}; allowed: {KEY}=true, {PNG}=true"
            problems.append(Problem(key, sentence))
        elif (match := TRUTH.fullmatch(value)) is None:
            problems.append(Problem(key, f"{text}: neither true nor false; allowed: true or false"))
        else:
            values[key] = match[2].lower() == "true"
    if problems:
        raise ConfigError(problems)
    png = values.get(PNG, False)
    return PreviewRequest(values.get(KEY, png), png, tuple(rest))


def key_of(text: str) -> str:
    """Return the key of an override, without the signs that add it."""
    return text.partition("=")[0].strip().lstrip("+")
