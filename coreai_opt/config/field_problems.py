"""What a pydantic class has against values, in sentences that name them as they were typed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from coreai_opt.config.errors import Problem
from coreai_opt.config.locations import typed_path, why_no_file
from coreai_opt.pruning._registry import Registry, nearest

Path = tuple[str | int, ...]


def validated(
    model: type[BaseModel], values: Mapping[str, Any], name: Callable[[Path], str]
) -> tuple[BaseModel | None, list[Problem]]:
    """Return the object that a class makes of values, or a problem for each that it refuses.

    Nothing heavy is imported for it.

    Args:
        model: the class.
        values: its fields, plain values.
        name: returns how a person would type the key at a path in the values.
    """
    try:
        return model.model_validate(values, context={"without_torch": True}), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        return None, [_problem(model, details, name(details["loc"])) for details in found]


def name_of(path: Path, names: Mapping[Path, str]) -> str:
    """Return the key that the value at a path was taken from, or the path where it was from none.

    Example:
        >>> name_of(("schedule", "milestones", 1), {("schedule", "milestones"): "milestones"})
        'milestones.1'
    """
    # An item of a list, ${milestones} in the node, is known by the name of the list.
    for end in range(len(path), 0, -1):
        if path[:end] in names:
            return ".".join(str(part) for part in (names[path[:end]], *path[end:]))
    return ".".join(str(part) for part in path)


def file_problems(given: Any, name: str, allowed: str | None) -> list[Problem]:
    """Return what is wrong with a value that is to lead to a file; null leads to none."""
    reason = why_no_file(typed_path(given)) if isinstance(given, str) else None
    if reason is None:
        return []
    return [Problem(name, f"{name}={given}: {reason}; allowed: {allowed}")]


def named_once(problems: list[Problem]) -> list[Problem]:
    """Return the first problem of each key: a knob may stand in several nodes."""
    named: dict[str, Problem] = {}
    for problem in problems:
        named.setdefault(problem.key, problem)
    return list(named.values())


def _problem(model: type[BaseModel], details: ErrorDetails, name: str) -> Problem:
    location = details["loc"]
    if details["type"] == "extra_forbidden":
        allowed = nearest(str(location[-1]), list(model.model_fields))
        return Problem(name, f"{name}: there is no such key; {allowed}")
    reason = details["msg"].removeprefix("Value error, ")
    reason = (reason[:1].lower() + reason[1:]).removeprefix("input ")
    text = None if "allowed: " in reason else described(model, location)
    allowed = f"; allowed: {text}" if text else ""
    return Problem(name, f"{name}{_shown(details)}: {reason}{allowed}")


def described(model: Any, location: Sequence[str | int]) -> str | None:
    """Return the description of the innermost field on the way to a location in a pydantic class.

    Example:
        >>> from coreai_opt.config.schemas.settings import ObjectiveSettings
        >>> described(ObjectiveSettings, ("mode",))
        'min or max'
    """
    text: str | None = None
    candidates = [model]
    for part in location:
        kinds = [known for known in candidates if isinstance(known, type)]
        fields = [known.model_fields for known in kinds if issubclass(known, BaseModel)]
        info = next((known[str(part)] for known in fields if part in known), None)
        if info is not None:
            text, candidates = info.description, [info.annotation]
        candidates = [inner for known in candidates for inner in (known, *_unpacked(known))]
    return text


def _unpacked(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, Registry):
        yield from annotation.REGISTRY.values()  # any of them may stand where the base does
    for inner in get_args(annotation):
        yield inner
        yield from _unpacked(inner)


def _shown(details: ErrorDetails) -> str:
    value = details["input"]
    if details["type"] == "missing" or isinstance(value, Mapping | list):
        return ""
    return f"={value:g}" if isinstance(value, float) else f"={value}"
