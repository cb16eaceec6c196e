"""Which weights: the config of a pruner, for the whole model and by module name."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
)

from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.config.schedules import SparsitySchedule, SparsityScheduleBase
from coreai_opt.pruning.spec.spec import PruningSpec, default_weight_pruning_spec

__all__ = ["MagnitudePrunerConfig", "ModuleMagnitudePrunerConfig"]

PARAMETERS = ["weight", "in_proj_weight", "*"]

SpecByParameter = dict[str, PruningSpec | None]


def _default_specs() -> SpecByParameter:
    return {name: default_weight_pruning_spec() for name in ("weight", "in_proj_weight")}


def check_schedule(value: Any) -> Any:
    """Build a schedule from a dict; let any object that has ``compute_sparsity`` through.

    Raises:
        ValueError: the object has no ``compute_sparsity``.
    """
    if isinstance(value, Mapping):
        return SparsityScheduleBase.maybe_build_from_dict(value)
    usable = callable(getattr(value, "compute_sparsity", None)) and not isinstance(value, type)
    if value is None or usable:
        return value
    raise ValueError(
        f"{value!r} is no schedule: it has no compute_sparsity(step_count, target_sparsity, "
        "prev_sparsity); allowed: a SparsityScheduleBase, a dict with its 'type', "
        "or an object with that method"
    )


def self_and_ancestors(name: str) -> list[str]:
    """Return a module's name and those of the modules around it, from the inside out.

    Example:
        >>> self_and_ancestors("body.0.conv")
        ['body.0.conv', 'body.0', 'body']
    """
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


class ModuleMagnitudePrunerConfig(BaseModel):
    """What is done to a module and its children.

    Args:
        op_state_spec: parameter name (``weight``, ``in_proj_weight``, or ``*`` for both) -> spec,
            None = left dense. Left out: 50 % on ``weight`` and ``in_proj_weight``.
        sparsity_schedule: overrides the global schedule; a schedule, or a dict with its ``type``.

    Raises:
        ValueError: an unknown field, or a value outside its range.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)

    op_state_spec: SpecByParameter | None = Field(
        default_factory=_default_specs, description="parameter name -> spec, null = left dense"
    )
    sparsity_schedule: Annotated[Any, BeforeValidator(check_schedule)] = Field(
        None, description="schedule of this module, null = the global one"
    )

    @field_validator("op_state_spec")
    @classmethod
    def _are_parameters(cls, value: SpecByParameter | None) -> SpecByParameter | None:
        for name in value or {}:
            if name not in PARAMETERS:
                raise ValueError(
                    f"{name!r} is no parameter of a layer; {nearest(name, PARAMETERS)}"
                )
        return value

    @field_serializer("sparsity_schedule")
    def _dump_schedule(self, value: Any) -> Any:
        if not isinstance(value, SparsityScheduleBase):
            return value
        return {"type": value.registry_key(), **value.model_dump()}

    def spec_for(self, parameter: str) -> PruningSpec | None:
        """Return the spec of a parameter by its name, None when it is left dense."""
        specs = self.op_state_spec or {}
        return specs[parameter] if parameter in specs else specs.get("*")


class MagnitudePrunerConfig(BaseModel):
    """What is pruned in a model.

    Args:
        global_config: for every module that no name matches; None = nothing. Left out: 50 %.
        module_name_configs: regular expression, matched against whole module names -> config;
            None = left dense. A config reaches the module's children; the nearest match counts,
            among several on one module the one listed first.

    Raises:
        ValueError: an unknown field, a value outside its range, or no regular expression.

    Example:
        >>> config = MagnitudePrunerConfig(module_name_configs={"head": None})
        >>> config.module_config("head") is None, config.module_config("body.0") is None
        (True, False)
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)

    global_config: ModuleMagnitudePrunerConfig | None = Field(
        default_factory=ModuleMagnitudePrunerConfig, description="for all modules, null = none"
    )
    module_name_configs: dict[str, ModuleMagnitudePrunerConfig | None] = Field(
        default_factory=dict, description="regular expression over module names -> config"
    )

    @field_validator("module_name_configs", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("module_name_configs")
    @classmethod
    def _are_patterns(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return value

    def module_config(self, name: str) -> ModuleMagnitudePrunerConfig | None:
        """Return the config that reaches the module of that name, None when it is left dense."""
        pattern = self.matching_pattern(name)
        return self.global_config if pattern is None else self.module_name_configs[pattern]

    def matching_pattern(self, name: str) -> str | None:
        """Return the pattern that matches the module or its nearest ancestor, None for none."""
        for ancestor in self_and_ancestors(name):
            for pattern in self.module_name_configs:
                if re.fullmatch(pattern, ancestor):
                    return pattern
        return None

    @classmethod
    def uniform(cls, target_sparsity: float, schedule: SparsitySchedule | None = None) -> Self:
        """Return the config that takes every prunable weight to one sparsity, in [0, 1]."""
        spec = PruningSpec(target_sparsity=target_sparsity)
        everything = ModuleMagnitudePrunerConfig(
            op_state_spec={"*": spec}, sparsity_schedule=schedule
        )
        return cls(global_config=everything)
