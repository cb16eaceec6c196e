"""The options of groups as overrides choose them: names, one or a list of them."""

from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from coreai_opt.config.composing import command_context, typed_flags
from coreai_opt.config.errors import Problem
from coreai_opt.config.groups import config_groups


def option_names(group: str) -> list[str]:
    """Return the names of a group's options, those of the user's own and of Hydra's among them."""
    with command_context(typed_flags.get()):
        loader = GlobalHydra.instance().config_loader()
        names: list[str] = loader.get_group_options(group, ObjectType.CONFIG)
    return names


def option_problems(overrides: Sequence[str]) -> list[Problem]:
    """Return what is wrong with lists that stand in the place of an option's name.

    Hydra itself fails with a TypeError where such a list holds anything but names.

    Args:
        overrides: as typed; those that are not of the form KEY=VALUE are left to Hydra.
    """
    groups = {group.name for group in config_groups()}
    found = []
    for text in overrides:
        group = text.lstrip("+").partition("=")[0].partition("@")[0]
        if "[" not in text or not (group in groups or "/" in group):
            continue
        if any(map(_is_no_list_of_names, _values(text))):
            allowed = ", ".join(option_names(group))
            sentence = f"{text}: not the names of options; allowed: {allowed}"
            found.append(Problem(group, sentence))
    return found


def values_of(override: Override) -> Iterable[Any]:
    """Return the value of an override, or those of its list; a range and an interval have none."""
    if not override.is_sweep_override():
        return [override.value()]
    return override.sweep_iterator() if override.is_choice_sweep() else []


def _values(text: str) -> Iterable[Any]:
    try:
        return values_of(OverridesParser.create().parse_override(text))
    except HydraException:
        return []


def _is_no_list_of_names(value: Any) -> bool:
    is_list = isinstance(value, list)
    return is_list and not all(isinstance(one, str | QuotedString) for one in value)
