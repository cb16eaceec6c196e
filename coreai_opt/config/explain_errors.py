"""What a command line that Hydra refuses has wrong, in the user's words.

Hydra stops at the first override that it cannot apply. Here that one is explained and taken away,
and the rest is composed again until it works: the user sees all that is wrong at once.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from hydra import compose
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.composing import command_context, first_point, task_config, typed_flags
from coreai_opt.config.errors import Problem
from coreai_opt.config.field_problems import described
from coreai_opt.config.group_options import option_names
from coreai_opt.config.groups import ConfigGroup, config_groups, find_group
from coreai_opt.config.hydra_internals import child_node, has_value
from coreai_opt.config.schemas.nodes import model_of_target
from coreai_opt.config.validation import find_problems
from coreai_opt.pruning._registry import nearest

# The override, or its key, in what Hydra says of it.
OVERRIDE = re.compile(
    r"Error merging override (.+)|force-add of .*?'(.+)'|Override (\S+?)=?\S* looks"
)
KEY = re.compile(r"Could not (?:override|append|delete) '([^'=]+)|(?:at|of|config\.) '([^']+)'")
TWICE = re.compile(r"Multiple values for (\S+?)\.")

# The schemas stood beside the options until version 0.1.
OLD_SCHEMA = re.compile(r"(?:hydra/)?(.+)/base_(\w+)")

# A list of values for one of Hydra's own settings, and for what would vary.
OF_HYDRA = re.compile(
    r"^Ambiguous value for argument '(\+*(hydra\.(?:sweeper\.params\.)?([^=]+))=(.+))'"
)
OF_NULL = re.compile(r"([^=]+=)choice\((.*)\)")

# A value that cannot be the name of an option: null, a number, a truth value.
NO_OPTION = re.compile(r"=(null|none|true|false|[-\d.e]+)$", re.IGNORECASE).search

# Hydra says some things with a plain ValueError.
Refusal = HydraException | OmegaConfBaseException | ValueError


def diagnose(error: Refusal, overrides: list[str]) -> list[Problem]:
    """Return what is wrong with the overrides of a command line, given the first error they met.

    Args:
        error: what Hydra raised.
        overrides: ``key=value`` each, as typed; of a list of values the first is looked at.
    """
    overrides = first_point(overrides)
    problems: list[Problem] = []
    seen: Refusal | None = error
    while seen is not None:
        bad = _culprit(seen, overrides)
        if bad is None:
            problems += _unattributed(seen, overrides)
            break
        overrides.remove(bad)
        problems.append(_explain(seen, bad, overrides))
        seen = _refusal(overrides)
    else:
        told = {problem.key for problem in problems}
        problems += [problem for problem in _remaining(overrides) if problem.key not in told]
    return list({problem.sentence: problem for problem in problems}.values())


def _unattributed(error: Refusal, overrides: list[str]) -> list[Problem]:
    """Return what is known of an error that is no override's."""
    found: list[Problem] = []
    if (match := OF_HYDRA.search(str(error))) is not None:
        typed, key, param, values = match.groups()
        way = f"{param}={values}" if param else "one value"
        sentence = f"{typed}: a list of values, and settings of Hydra's own do not vary"
        return [Problem(key, f"{sentence}; allowed: {way}")]
    if isinstance(error, MissingConfigException) and (
        (match := OLD_SCHEMA.fullmatch(str(error.missing_cfg_file))) is not None
    ):
        group, name = match.groups()
        first, new = str(error).partition(".\n")[0], f"/schema/{group}/{name}"
        allowed = f"{new}@_here_ for base_{name}, {new}@NODE for base_{name}@NODE"
        return [Problem(group, f"{first}: the schemas have moved; allowed: {allowed}")]
    # A plain ValueError where all composes is validation's own.
    if isinstance(error, HydraException | OmegaConfBaseException) and _refusal(overrides) is None:
        found = _remaining(overrides)
    return found or [Problem("", _sentence(str(error)))]


def _culprit(error: Refusal, overrides: list[str]) -> str | None:
    """Return the override that an error is about, None when that cannot be told."""
    if isinstance(error, OverrideParseException):
        return error.override if error.override in overrides else None
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        named = [one for one in overrides if _key(one) == group]
        return next((one for one in named if option in one), None)
    if str(error).startswith("Config group override"):
        groups = {group.name for group in config_groups()}
        return next((one for one in overrides if _key(one) in groups and NO_OPTION(one)), None)
    return _named_in(str(error), overrides) or _without_which_it_composes(error, overrides)


def _named_in(text: str, overrides: list[str]) -> str | None:
    """Return the last override that a sentence of Hydra's names, None where it names none."""
    first = text.partition("\n")[0]
    if (match := OVERRIDE.search(first)) is not None:
        whole = next(part for part in match.groups() if part is not None)
        if whole in overrides:
            return whole
    for pattern in (KEY, TWICE):
        if (match := pattern.search(first)) is not None:
            key = _key(next(part for part in match.groups() if part is not None))
            return next((one for one in reversed(overrides) if _key(one) == key), None)
    return None


def _without_which_it_composes(error: Refusal, overrides: list[str]) -> str | None:
    """Return the override that an error is gone without, None where there is none such."""
    if str(_refusal(overrides)) != str(error):
        return None  # it comes later than composing
    for one in overrides:
        seen = _refusal([other for other in overrides if other != one])
        if str(seen) != str(error):
            return one
    return None


def _explain(error: Refusal, bad: str, others: list[str]) -> Problem:
    key = _key(bad)
    if isinstance(error, OverrideParseException):
        if "NoneType is incompatible" in str(error) and (match := OF_NULL.fullmatch(bad)):
            way = f"allowed, in a search as well: {match[1]}{match[2]}"
            return Problem(key, f"{bad}: Hydra's choice() takes no null; {way}")
        return Problem(key, f"{bad}: not of the form KEY=VALUE; {_sentence(str(error))}")
    if isinstance(error, MissingConfigException):
        option = str(error.missing_cfg_file).rpartition("/")[2]
        # Of a list of options Hydra tells none.
        options = list(error.options or option_names(key))
        is_alone = bad.partition("=")[2] == option
        none = f"{key}={option}: there is no such option"
        told = none if is_alone else f"{bad}: there is no option {option!r}"
        return Problem(key, f"{told}; {nearest(option, options)}")
    if str(error).startswith("Config group override"):
        options = next(group.names() for group in config_groups() if group.name == key)
        return Problem(key, f"{bad}: not the name of an option; allowed: {', '.join(options)}")
    if taken := [one for one in others if one.startswith("~") and _key(one) == key]:
        return Problem(key, f"{bad}: {taken[0]} takes {key} away; allowed: one of the two")
    if (prefixed := _of_prefix(str(error), bad, others)) is not None:
        return Problem(key, f"{bad}: {prefixed}")
    cause = _sentence(str(error.__cause__ or error))
    if cause.endswith("is not in struct") and bad.partition("=")[2].startswith("{"):
        return Problem(key, f"{bad}: {cause}; allowed: ++{bad.lstrip('+')}")
    if str(error).startswith("Error merging"):
        text = _described(key, others)
        return Problem(key, f"{bad}: {cause}" + (f"; allowed: {text}" if text else ""))
    if key in _known_keys(others):
        return Problem(key, f"{bad}: {cause}")
    return Problem(key, _unknown_key(key, bad, others))


def _of_prefix(text: str, bad: str, others: list[str]) -> str | None:
    """Return what is wrong with the signs before a key, or with the group behind an ``@``."""
    key, first = _key(bad), text.partition("\n")[0]
    plain = bad.lstrip("+~")
    if bad.startswith("~") and first.startswith("Error merging"):
        told = _described(key, others)
        about = f", {told}" if told else ""
        return f"a key of this node always has a value; allowed: {key}=VALUE{about}"
    if "An item is already at" in first or first.startswith("Multiple values"):
        return f"{key} is there already; allowed: {plain}"
    if first.startswith("force-add"):
        return f"a group takes no ++; allowed: {plain}"
    if "looks like a config group" in first:
        return f"there is no group {key!r}; {nearest(key, [one.name for one in config_groups()])}"
    if first.startswith("Could not delete"):
        return _of_deletion(first, bad, others)
    if "@" in plain.partition("=")[0] and first.startswith("Could not override"):
        return f"the defaults have none such; allowed: +{plain}, or {key}=OPTION"
    return None


def _of_deletion(first: str, bad: str, others: list[str]) -> str:
    key = _key(bad)
    if "The value of" in first:
        return first.rpartition("The value of ")[2].rstrip(".")
    group = find_group(key)
    if group is not None and "=" in bad:
        return f"{key}={_chosen(group, others)} is chosen; allowed: ~{key}"
    if key in _known_keys(others, of_hydra=key.startswith("hydra.")):
        return f"{key} is null; there is nothing to take away"
    return _no_such_key(key, others)


def _described(key: str, others: list[str]) -> str | None:
    """Return what our settings say of a key of a node, None when the node is not ours."""
    path, _, field = key.rpartition(".")
    node = OmegaConf.select(_composed(others), path) if path else None
    model = model_of_target(str(node["_target_"])) if node and "_target_" in node else None
    return None if model is None else described(model, (field,))


def _unknown_key(key: str, bad: str, others: list[str]) -> str:
    for group in config_groups():
        names = [opt.name for opt in group.options if key in {knob.name for knob in opt.knobs}]
        if not names or group.name == "experiment":
            continue
        chosen = _chosen(group, others)
        option = next((one for one in group.options if one.name == chosen), None)
        if option is not None:
            own = ", ".join(knob.name for knob in option.knobs) or "none"
            having = " and ".join(f"{group.name}={name}" for name in names)
            return f"{bad}: {group.name}={chosen} has no {key!r}; allowed: {own}; {having} has it"
    return f"{bad}: {_no_such_key(key, others)}"


def _no_such_key(key: str, others: list[str]) -> str:
    known = _known_keys(others, of_hydra=key.startswith("hydra."))
    depth = key.count(".")
    same_depth = [name for name in known if name.count(".") == depth]
    parent = key.rpartition(".")[0]
    siblings = [name for name in same_depth if name.rpartition(".")[0] == parent]
    return f"there is no key {key!r}; {nearest(key, siblings or same_depth)}"


def _chosen(group: ConfigGroup, overrides: list[str]) -> str | None:
    value = next((one for one in overrides if _key(one) == group.name), None)
    if value is not None:
        return value.partition("=")[2]
    composed = _composed(overrides)
    choice = OmegaConf.select(composed, f"hydra.runtime.choices.{group.name}")
    return None if choice is None else str(choice)


def _known_keys(overrides: list[str], of_hydra: bool = False) -> list[str]:
    composed = _composed(overrides)
    if of_hydra:
        return sorted(_dotted(composed.hydra, "hydra."))
    groups = [group.name for group in config_groups()]
    return sorted({*groups, *_dotted(composed)})


def _dotted(config: Any, prefix: str = "") -> Iterator[str]:
    for key in config:
        if str(key).startswith("_") or (not prefix and key == "hydra"):
            continue
        yield f"{prefix}{key}"
        child = child_node(config, key)
        if isinstance(child, DictConfig) and has_value(child):
            yield from _dotted(child, f"{prefix}{key}.")


def _refusal(overrides: list[str]) -> Refusal | None:
    try:
        _compose(tuple(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return error
    return None


def _composed(overrides: list[str]) -> DictConfig:
    """Compose, without the overrides where they do not let it."""
    return _compose(tuple(overrides) if _refusal(overrides) is None else ())


def _remaining(overrides: list[str]) -> list[Problem]:
    """Return what validation has against the overrides that Hydra accepts."""
    return find_problems(task_config(_compose(tuple(overrides)), "."))


@cache
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    """Compose with Hydra's own node, once for each command line: it takes 0.2 s."""
    # Hydra may be in the middle of a command. With --config-dir the user's own options are composed
    # as well.
    with command_context(typed_flags.get()) as name:
        return compose(name, list(overrides), return_hydra_config=True)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def _sentence(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    inner = ("full_key:", "reference_type=", "object_type=")
    kept = [line for line in lines if not line.startswith(inner)]
    return "; ".join(kept[:2])
