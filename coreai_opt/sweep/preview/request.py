"""Request for a preview on the command line: ``preview=true``, ``preview.png=true``."""

from collections.abc import Iterable
from dataclasses import dataclass

from coreai_opt.config.errors import ConfigError, Problem

__all__ = ["PreviewRequest", "read_request", "without_png"]

KEY, PNG = "preview", "preview.png"
TRUTH = {"true": True, "false": False}


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
        key = _key(text)
        if key != KEY and not key.startswith(f"{KEY}."):
            rest.append(text)
        elif (problem := _problem(text)) is not None:
            problems.append(problem)
        else:
            values[key] = _truth(text) is True
    if problems:
        raise ConfigError(problems)
    png = values.get(PNG, False)
    return PreviewRequest(values.get(KEY, png), png, tuple(rest))


def without_png(overrides: Iterable[str]) -> tuple[str, ...]:
    """Return overrides without ``preview.png``, which the config does not have.

    Example:
        >>> without_png(["preview=false", "preview.png=true", "power=2"])
        ('preview=false', 'power=2')
    """
    return tuple(text for text in overrides if _key(text) != PNG)


def _key(text: str) -> str:
    return text.partition("=")[0].strip().lstrip("+")


def _truth(text: str) -> bool | None:
    value = text.partition("=")[2].strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return TRUTH.get(value.lower())


def _problem(text: str) -> Problem | None:
    key = _key(text)
    if key not in (KEY, PNG):
        sentence = f"{text}: there is no key {key!r}; allowed: {KEY}=true, {PNG}=true"
        return Problem(key, sentence)
    if _truth(text) is None:
        return Problem(key, f"{text}: neither true nor false; allowed: true or false")
    return None
