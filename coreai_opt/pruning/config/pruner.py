"""Pruner config: which weights are pruned, by module type and by module name."""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from coreai_opt.pruning.config._names import (
    by_type,
    check_patterns,
    class_named,
    first_match,
    self_and_ancestors,
    type_name,
)
from coreai_opt.pruning.config.module import ModuleMagnitudePrunerConfig, none_is_empty
from coreai_opt.pruning.config.schedules import SparsitySchedule
from coreai_opt.pruning.spec.spec import PruningSpec

if TYPE_CHECKING:
    from torch import nn

KEY = "magnitude_pruning_config"

Allocation = Literal["uniform", "erdos_renyi", "global"]
ModuleConfigs = dict[Any, ModuleMagnitudePrunerConfig | None]
Chain = Sequence[tuple[str, "type[nn.Module] | None"]]


class Specificity(IntEnum):
    """How a config came to apply to a module; the lower goes over the higher."""

    NAME = 0
    TYPE = 1
    GLOBAL = 2


class ModuleMatch(NamedTuple):
    """The config of a module, None = left dense, and what made it apply."""

    level: Specificity
    key: Any
    config: ModuleMagnitudePrunerConfig | None


class MagnitudePrunerConfig(BaseModel):
    """What is pruned in a model.

    A config by name goes over one by type, and that over the global one. It reaches the module's
    children; of several the nearest to the child counts. None = left dense.

    Args:
        global_config: for every module that neither a name nor a type matches. Left out: 50 %.
        module_type_configs: class, or its dotted path -> config. A class covers its subclasses; the
            nearest in the ancestry counts.
        module_name_configs: regular expression, matched against whole module names -> config. Of
            several that match one module the one listed first counts. ``""`` names the model
            itself, and so reaches all that no other name does.
        allocation: what one target means for many tensors: ``uniform``, the same share of each;
            ``erdos_renyi``, a share by shape; ``global``, one threshold over all. Tensors that
            share a target and a schedule share it.
        allow_regrowth: whether a pruned weight may come back at a later update.

    Raises:
        ValueError: an unknown field, a value outside its range, or no regular expression.

    Example:
        >>> config = MagnitudePrunerConfig(module_name_configs={"head": None})
        >>> config.get_module_config("head") is None, config.get_module_config("body.0") is None
        (True, False)
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)

    global_config: ModuleMagnitudePrunerConfig | None = Field(
        default_factory=ModuleMagnitudePrunerConfig, description="for all modules, null = none"
    )
    module_type_configs: Annotated[ModuleConfigs, BeforeValidator(none_is_empty)] = Field(
        default_factory=dict, description="class, or its dotted path -> config"
    )
    module_name_configs: Annotated[
        dict[str, ModuleMagnitudePrunerConfig | None], BeforeValidator(none_is_empty)
    ] = Field(default_factory=dict, description="regular expression over module names -> config")
    allocation: Allocation = Field("uniform", description="uniform, erdos_renyi or global")
    allow_regrowth: bool = Field(True, description="whether pruned weights may come back")

    @field_validator("global_config")
    @classmethod
    def _has_no_module_state(
        cls, value: ModuleMagnitudePrunerConfig | None
    ) -> ModuleMagnitudePrunerConfig | None:
        if value is not None and value.module_state_spec is not None:
            raise ValueError(
                "module_state_spec is not allowed in global_config; allowed: op_state_spec"
            )
        return value

    @field_validator("module_type_configs")
    @classmethod
    def _are_types(cls, value: dict[Any, Any], info: ValidationInfo) -> dict[Any, Any]:
        for key in value:
            if not isinstance(key, type | str):
                raise ValueError(f"{key!r} is no type; allowed: a class, or its dotted path")
        if (info.context or {}).get("without_torch"):
            return value
        # A class and its paths are one key: what is set last counts, and what is read is equal.
        return {_class_or_path(key): config for key, config in value.items()}

    @field_validator("module_name_configs")
    @classmethod
    def _are_patterns(cls, value: ModuleConfigs) -> ModuleConfigs:
        check_patterns(value)
        return value

    @field_serializer("module_type_configs", mode="wrap")
    def _dump_types(self, value: dict[Any, Any], handler: Any, info: SerializationInfo) -> Any:
        named = {type_name(key): config for key, config in value.items()}
        return handler(named if info.mode == "json" else value)

    def get_module_config(
        self, name: str, module: "nn.Module | None" = None
    ) -> ModuleMagnitudePrunerConfig | None:
        """Return the config that reaches a module, None when it is left dense.

        Args:
            name: the module's name in the model.
            module: the module, for configs by type; those of the modules around it are not known
                here, the pruner looks at them as well.
        """
        kind = None if module is None else type(module)
        around = [(ancestor, None) for ancestor in [*self_and_ancestors(name)[1:], ""] if name]
        return self.match([(name, kind), *around]).config

    def match(self, chain: Chain) -> ModuleMatch:
        """Return the config that reaches a module, and what made it apply.

        Args:
            chain: names and classes of the module and of those around it, from the inside out.
        """
        named = self.module_name_configs
        for name, _ in chain:
            pattern = first_match(named, [name]) if name else None
            if not name and "" in named:
                pattern = ""  # the root module itself; no expression reaches it
            if pattern is not None:
                return ModuleMatch(Specificity.NAME, pattern, named[pattern])
        for _, kind in chain:
            key = None if kind is None else by_type(self.module_type_configs, kind)
            if key is not None:
                return ModuleMatch(Specificity.TYPE, key, self.module_type_configs[key])
        return ModuleMatch(Specificity.GLOBAL, None, self.global_config)

    def set_global(self, config: ModuleMagnitudePrunerConfig | None) -> Self:
        """Set the config of all modules that nothing else names; None = left dense."""
        self.global_config = config
        return self

    def set_module_type(
        self, module_type: type | str, config: ModuleMagnitudePrunerConfig | None
    ) -> Self:
        """Set the config of a module type, a class or its dotted path; None = left dense."""
        self.module_type_configs = {**self.module_type_configs, module_type: config}
        return self

    def set_module_name(self, name: str, config: ModuleMagnitudePrunerConfig | None) -> Self:
        """Set the config of module names, a regular expression; None = left dense.

        Of several that match one module the one that was set last counts.
        """
        others = {key: kept for key, kept in self.module_name_configs.items() if key != name}
        self.module_name_configs = {name: config, **others}
        return self

    def only_for(self, *targets: type | str) -> Self:
        """Prune only these modules and their children, with what applied to them so far.

        What is left dense stays dense, and configs for children of the targets stay too. A config
        by name goes over one by type here as elsewhere.

        Args:
            targets: module names (regular expressions), classes or dotted paths of classes.

        Raises:
            ValueError: no target, or one that is left dense so far.
        """
        types, names = self._sorted_out(targets)
        typed, named = ({key: self._so_far(key) for key in among} for among in (types, names))
        for target, config in [*typed.items(), *named.items()]:
            if config is None:
                raise ValueError(
                    f"only_for({type_name(target)!r}): what applied to it is None, left dense; "
                    "give it a config first"
                )
        kept_types = {
            key: config
            for key, config in self.module_type_configs.items()
            if config is None or _is_kind(key, types)
        }
        kept_names = {
            key: config
            for key, config in self.module_name_configs.items()
            if config is None or _lies_below(key, names)
        }
        self.module_type_configs = self._with_schedule({**kept_types, **typed})
        self.module_name_configs = self._with_schedule({**kept_names, **named})
        self.global_config = None
        return self

    def without(self, *targets: type | str) -> Self:
        """Leave these modules and their children dense.

        Args:
            targets: module names (regular expressions), classes or dotted paths of classes; a class
                means its subclasses too. A config by name goes over one by type here as elsewhere.

        Raises:
            ValueError: no target.
        """
        types, names = self._sorted_out(targets)
        others = {
            key: config
            for key, config in self.module_type_configs.items()
            if not _is_kind(key, types)
        }
        self.module_type_configs = {**others, **dict.fromkeys(types)}
        kept = {
            key: config
            for key, config in self.module_name_configs.items()
            if key not in names and not _lies_below(key, names)
        }
        self.module_name_configs = {**dict.fromkeys(names), **kept}
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the config in plain values, under the key ``magnitude_pruning_config``.

        Raises:
            ValueError: a schedule is not registered, so that it cannot be written down.
        """
        return {KEY: self.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from what ``to_dict`` returns.

        Raises:
            ValueError: the key ``magnitude_pruning_config`` is missing, or a value is wrong.
        """
        if set(values) != {KEY}:
            found = ", ".join(map(str, values)) or "nothing"
            raise ValueError(f"the config must stand under the key {KEY!r}; found: {found}")
        return cls.model_validate(values[KEY] or {})

    def to_yaml(self, path: str | Path | None = None) -> str:
        """Return the config as YAML, and write it to a file when one is given."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False)
        if path is not None:
            beside = Path(path).with_name(f".{Path(path).name}")
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        return text

    @classmethod
    def from_yaml(cls, source: str | Path | IO[str]) -> Self:
        """Build a config from YAML: a path, an open file, or the text itself.

        Raises:
            FileNotFoundError: there is no file at the path.
            ValueError: what is read is no config.
        """
        is_text = "\n" in str(source) or f"{KEY}:" in str(source) or str(source).startswith("{")
        if isinstance(source, str) and not is_text:
            source = Path(source)
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        values = yaml.safe_load(text)
        if not isinstance(values, Mapping):
            raise ValueError(f"the YAML must hold a mapping with the key {KEY!r}")
        return cls.from_dict(values)

    @classmethod
    def uniform(cls, target_sparsity: float, schedule: SparsitySchedule | None = None) -> Self:
        """Return the config that takes every prunable weight to one sparsity, in [0, 1]."""
        spec = PruningSpec(target_sparsity=target_sparsity)
        everything = ModuleMagnitudePrunerConfig(
            op_state_spec={"*": spec}, sparsity_schedule=schedule
        )
        return cls(global_config=everything)

    def module_configs(self) -> list[ModuleMagnitudePrunerConfig]:
        """Return all configs of modules that there are, the global one first."""
        named = [*self.module_type_configs.values(), *self.module_name_configs.values()]
        return [config for config in [self.global_config, *named] if config is not None]

    def _so_far(self, target: type | str) -> ModuleMagnitudePrunerConfig | None:
        """Return the config of a target of ``only_for``, as far as it is known without a model."""
        if isinstance(target, type):
            key = by_type(self.module_type_configs, target)
            return self.global_config if key is None else self.module_type_configs[key]
        known: ModuleConfigs = {**self.module_type_configs, **self.module_name_configs}
        return known[target] if target in known else self.get_module_config(_plain(target))

    def _with_schedule(self, configs: ModuleConfigs) -> ModuleConfigs:
        """Write the global schedule into the configs that it applies to."""
        schedule = None if self.global_config is None else self.global_config.sparsity_schedule
        if schedule is None:
            return configs
        return {
            key: config.model_copy(update={"sparsity_schedule": schedule})
            if config is not None and config.sparsity_schedule is None
            else config
            for key, config in configs.items()
        }

    def _sorted_out(self, targets: Sequence[type | str]) -> tuple[list[type | str], list[str]]:
        """Return the targets that are types, and those that are names of modules."""
        if not targets:
            raise ValueError("no target is given; allowed: module names, classes, or their paths")
        types: list[type | str] = []
        names: list[str] = []
        for target in map(_class_or_path, targets):
            if isinstance(target, type) or target in self.module_type_configs:
                types.append(target)
            else:
                names.append(target)
        check_patterns(names)
        return types, names


def _class_or_path(key: type | str) -> type | str:
    """Return the class with a dotted path, the path where it cannot be loaded."""
    return (class_named(key) or key) if isinstance(key, str) else key


def _plain(pattern: str) -> str:
    """Return the name that a regular expression stands for when only its dots are escaped."""
    return pattern.replace(r"\.", ".")


def _lies_below(pattern: str, names: Iterable[str]) -> bool:
    return first_match(names, self_and_ancestors(_plain(pattern))[1:]) is not None


def _is_kind(key: Any, kinds: Iterable[Any]) -> bool:
    bases = tuple(kind for kind in kinds if isinstance(kind, type))
    return key in kinds or (isinstance(key, type) and issubclass(key, bases))
