"""Values of an app that ``+prune=poly`` has been put over, in the files that a job consists of.

Hydra merges what is added on the command line last, whatever the app's files have under the key.
"""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from coreai_opt.config.errors import Problem
from coreai_opt.plugin.clashes import AT_THE_ROOT, App, defaults_of, sources_of
from coreai_opt.plugin.options import GROUPS, defaults


def put_over(hydra: DictConfig, key: str, typed: list[str]) -> list[Problem]:
    """Return a problem for each file of a job that has something under our key.

    Args:
        hydra: Hydra's own node of the job's config.
        key: that of our knobs, at the root.
        typed: overrides of the job. An option that a file chooses is merged where the file says.
    """
    group = next((one for one in GROUPS if GROUPS[one] == key), key)
    added = next((text for text in typed if text.startswith(f"+{group}=")), None)
    if added is None:
        return []
    found = [_problem(path, key, added, values) for path, values in _at(hydra, key)]
    return found[:1]


def _problem(path: str, key: str, added: str, values: object) -> Problem:
    given = list(values) if isinstance(values, dict) else []
    if given and set(given) <= {*defaults("poly"), *defaults("exponential")}:
        names = ", ".join(f"{key}.{name}" for name in given)
        way = f"'- /{added[1:].replace('=', ': ')}' in the defaults of that file, without {added}"
        sentence = f"{added} is put over {names} of {path}, which would not count; allowed: {way}"
    else:
        other = added.replace("+prune", "+coreai_prune") if key == "prune" else "a name of its own"
        sentence = f"{added}: {path} of this app has a {key!r} of its own; allowed: {other}"
    return Problem(key, sentence)


def _at(hydra: DictConfig, key: str) -> Iterator[tuple[str, object]]:
    """Yield each file of a job that puts something at a key of the root, and what it puts there."""
    sources = [
        (str(one.provider), f"{one.schema}://{one.path}")
        for one in hydra.runtime.config_sources
        if one.provider not in ("hydra", "hydra-coreai-opt")
    ]
    opened = list(sources_of(App(tuple(sources), ())))
    waiting, seen = [str(hydra.job.config_name), *_chosen(hydra)], set[str]()
    while waiting:
        path = waiting.pop().removesuffix(".yaml")
        source = next((one for one in opened if one.is_config(path)), None)
        if source is None or path in seen:
            continue
        seen.add(path)
        loaded, folder = source.load_config(path), path.rpartition("/")[0]
        if not isinstance(loaded.config, DictConfig):
            continue
        plain: Any = OmegaConf.to_container(loaded.config)
        package = (loaded.header or {}).get("package") or folder
        if package in AT_THE_ROOT and key in plain:
            yield path, plain[key]
        waiting += _named(defaults_of(loaded.config), folder)


def _named(defaults: list[Any], folder: str) -> Iterator[str]:
    """Yield the configs that a defaults list names without a group."""
    for item in defaults:
        name, _, package = item.partition("@") if isinstance(item, str) else ("_self_", "", "")
        if name != "_self_" and package in AT_THE_ROOT:
            yield name[1:] if name.startswith("/") else f"{folder}/{name}".strip("/")


def _chosen(hydra: DictConfig) -> Iterator[str]:
    for group, option in hydra.runtime.choices.items():
        name = str(group).partition("@")[0]
        if option is None or name in GROUPS or name.startswith("hydra/"):
            continue
        for one in [option] if isinstance(option, str) else option:
            yield f"{name}/{one}"
