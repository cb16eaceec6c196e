"""What the overrides of a sweep vary: axes that are crossed, of one knob or of several in step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.group_options import values_of

# How a search is chosen, in our own app.
HOW_TO_SEARCH = (
    "a search: hydra/sweeper=optuna, typed or in a primary config (an experiment file cannot "
    "choose it)"
)


@dataclass(frozen=True)
class Assignment:
    """One override with one value, as one run takes it.

    Attributes:
        text: as it is typed, ``optimizer.lr=0.1``.
        override: what Hydra reads in it.
    """

    text: str
    override: Override

    @property
    def name(self) -> str:
        """The key without the signs that add or delete it."""
        return str(self.override.key_or_group)

    @property
    def key(self) -> str:
        """The key as typed, with the signs that add or delete it."""
        return str(self.override.get_key_element())

    @property
    def root(self) -> str:
        """The key at the root that it sets, or sets something below."""
        return self.name.partition(".")[0]

    @property
    def value(self) -> str:
        """What stands behind the equals sign."""
        return self.text.partition("=")[2]


@dataclass(frozen=True)
class Axis:
    """Overrides that change together, one row a value; one row where nothing is varied."""

    rows: tuple[tuple[Assignment, ...], ...]
    is_varied: bool

    @property
    def names(self) -> list[str]:
        """The keys that it sets."""
        return [assignment.name for assignment in self.rows[0]]


def parse(texts: Iterable[str], loader: ConfigLoader) -> list[Override]:
    """Return overrides as Hydra reads them; of two for the same key the last counts.

    Dicts of one key are put together, and so both count.
    """
    parsed = OverridesParser.create(loader).parse_overrides(list(texts))
    gone = [earlier for earlier, _ in _replaced(parsed)]
    return [one for one in parsed if not any(one is other for other in gone)]


def replaced(texts: Iterable[str], loader: ConfigLoader) -> list[str]:
    """Return a sentence for each override that ``parse`` leaves out."""
    pairs = _replaced(OverridesParser.create(loader).parse_overrides(list(texts)))
    return [
        f"{earlier.input_line} does not count: {later.input_line} is given after it"
        for earlier, later in pairs
        if str(earlier.input_line).lstrip("+") != str(later.input_line).lstrip("+")
    ]


def _replaced(parsed: Sequence[Override]) -> list[tuple[Override, Override]]:
    """Return the overrides that a later one puts its value in the place of, each with the last."""
    found = []
    for index, earlier in enumerate(parsed):
        later = [one for one in parsed[index + 1 :] if _replaces(one, earlier)]
        if later:
            found.append((earlier, later[-1]))
    return found


def _replaces(later: Override, earlier: Override) -> bool:
    is_same = (later.key_or_group, later.package) == (earlier.key_or_group, earlier.package)
    if not is_same or later.is_delete() or earlier.is_delete():
        return False
    # +x=1 x=2: the first one makes the place; x=1 +x=2 is what Hydra refuses.
    stands_alone = later.type == earlier.type or later.is_force_add()
    values = (*values_of(later), *values_of(earlier))
    return stands_alone and not any(isinstance(one, dict) for one in values)


def read_axes(
    overrides: Sequence[Override], loader: ConfigLoader, together: Any = None, name: str = ""
) -> list[Axis]:
    """Return the axes of a sweep, in the order in which they were typed.

    Args:
        overrides: of the runs.
        loader: reads the values once they stand alone.
        together: names of knobs whose lists are paired, or a list of such lists.
        name: key of the setting that says so, ``sweep.zip``.

    Raises:
        ConfigError: lists that are paired have different lengths, or are none.
    """
    found = [(one.get_key_element(), _axis(one, loader)) for one in overrides]
    axes = dict(found)  # only dicts of one key stand there twice
    groups = _groups(together)
    paired = {name: group for group in groups for name in group}
    _check_pairs(name, groups, axes)
    keys = [key for key, _ in found]
    if twice := sorted(key for key in paired if keys.count(key) > 1):
        raise ConfigError.of(name, f"{name}: {twice[0]} is given twice; allowed: once")
    joined: list[Axis] = []
    for key, axis in found:
        group = paired.get(key)
        if group is None:
            joined.append(axis)
        elif key == next(name for name in axes if name in group):
            joined.append(_zipped([axes[name] for name in axes if name in group]))
    return joined


def without_dicts(sentence: str, rows: Iterable[Iterable[Assignment]]) -> str:
    """Return a sentence without the dicts of a point: of many points it is to be said once."""
    dicts = {one.value for row in rows for one in row if one.value.startswith("{")}
    for text in dicts:
        sentence = sentence.replace(text, "{}")
    return sentence


def _axis(override: Override, loader: ConfigLoader) -> Axis:
    if not override.is_sweep_override():
        return Axis(((Assignment(str(override.input_line), override),),), is_varied=False)
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        allowed = f"allowed: {key}=1,2,3 or so, or {HOW_TO_SEARCH}"
        raise ConfigError.of(
            key, f"{override.input_line}: a grid needs a list of values; {allowed}"
        )
    values = list(override.sweep_string_iterator())
    if not values:
        raise ConfigError.of(key, f"{override.input_line}: no option fits; allowed: a list of them")
    texts = [f"{key}={value}" for value in values]
    parsed = OverridesParser.create(loader).parse_overrides(texts)
    rows = zip(texts, parsed, strict=True)
    return Axis(tuple((Assignment(*row),) for row in rows), is_varied=True)


def _zipped(axes: Sequence[Axis]) -> Axis:
    rows = zip(*(axis.rows for axis in axes), strict=True)
    return Axis(tuple(tuple(one for part in row for one in part) for row in rows), is_varied=True)


def _groups(together: Any) -> list[list[str]]:
    if not together:
        return []
    if all(isinstance(item, str) for item in together):
        return [list(together)]
    return [list(item) for item in together]


def _check_pairs(name: str, groups: Sequence[Sequence[str]], axes: dict[str, Axis]) -> None:
    for group in groups:
        shown = f"{name}=[{','.join(group)}]"
        for key in group:
            if key not in axes or not axes[key].is_varied:
                varied = [known for known, axis in axes.items() if axis.is_varied]
                allowed = f"allowed: {', '.join(varied) or 'knobs with a list of values'}"
                raise ConfigError.of(name, f"{shown}: {key} is not varied; {allowed}")
        lengths = {key: len(axes[key].rows) for key in group}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {count} values" for key, count in lengths.items())
            raise ConfigError.of(name, f"{shown}: {told}; allowed: lists of one length")
    names = [key for group in groups for key in group]
    if twice := sorted({key for key in names if names.count(key) > 1}):
        raise ConfigError.of(name, f"{name}: {twice[0]} is there twice; allowed: once")
