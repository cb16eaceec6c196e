"""What is done to the ops of one module: the inner levels of a pruner's config."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.config._names import check_patterns, first_match
from coreai_opt.pruning.config.asking import asking_of
from coreai_opt.pruning.config.schedules import SparsityScheduleBase
from coreai_opt.pruning.spec.spec import PruningSpec, default_weight_pruning_spec

__all__ = ["OP_TYPES", "ModuleMagnitudePrunerConfig", "OpMagnitudePrunerConfig", "OpMatch"]

PARAMETERS = ["weight", "in_proj_weight", "*"]
RECURRENT = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?")

OP_TYPES = [
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "multi_head_attention_forward",
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "lstm_cell",
    "gru_cell",
    "rnn_tanh_cell",
    "rnn_relu_cell",
]

ACTIVATION_SPECS = ("op_input_spec", "op_output_spec", "module_input_spec", "module_output_spec")

SpecByParameter = dict[str, PruningSpec | None]


def _default_specs() -> SpecByParameter:
    return {name: default_weight_pruning_spec() for name in ("weight", "in_proj_weight")}


def none_is_empty(value: Any) -> Any:
    """Take None for an empty dict, as it stands in a config file."""
    return {} if value is None else value


def check_schedule(value: Any) -> Any:
    """Build a schedule from a dict; let any object that has ``compute_sparsity`` through.

    Raises:
        ValueError: the object has no ``compute_sparsity``, or one that takes something else.
    """
    if isinstance(value, Mapping):
        value = SparsityScheduleBase.maybe_build_from_dict(value)
    if value is None:
        return value
    if callable(getattr(value, "compute_sparsity", None)) and not isinstance(value, type):
        asking_of(value)
        return value
    raise ValueError(
        f"{value!r} is no schedule: it has no compute_sparsity(step_count, target_sparsity, "
        "prev_sparsity); allowed: a SparsityScheduleBase, a dict with its 'type', "
        "or an object with that method"
    )


def _check_parameters(value: SpecByParameter | None) -> SpecByParameter | None:
    for name in value or {}:
        if name not in PARAMETERS and RECURRENT.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no parameter of an op; {nearest(name, PARAMETERS)}")
    return value


def _look_up(specs: SpecByParameter | None, *names: str) -> PruningSpec | None:
    """Return the spec of a parameter by the most specific of its names that is a key, or ``*``."""
    known = next((name for name in (*names, "*") if name in (specs or {})), None)
    return None if specs is None or known is None else specs[known]


class OpMatch(NamedTuple):
    """What a module's config says of one op: how specific that is (0 = most), and the spec."""

    rank: int
    spec: PruningSpec | None


class _WeightsOnly(BaseModel):
    """Base of the levels that hold specs: only weights are pruned, activations are not."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_activations(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        for name in ACTIVATION_SPECS:
            if values.get(name):
                raise ValueError(
                    f"pruning does not support {name}: weights are pruned, activations are not"
                )
        return {name: value for name, value in values.items() if name not in ACTIVATION_SPECS}


class OpMagnitudePrunerConfig(_WeightsOnly):
    """What is done to the weights of one op.

    Args:
        op_state_spec: parameter name (``weight``, ``in_proj_weight``, one of a recurrent layer, or
            ``*`` for all) -> spec, None = left dense. Left out: 50 % on ``weight`` and
            ``in_proj_weight``.

    Raises:
        ValueError: an unknown field, an activation spec, or a value outside its range.
    """

    op_state_spec: SpecByParameter | None = Field(
        default_factory=_default_specs, description="parameter name -> spec, null = left dense"
    )

    _parameters = field_validator("op_state_spec")(_check_parameters)

    @classmethod
    def get_default_state_spec(cls) -> SpecByParameter:
        """Return the specs of a config that says nothing: 50 % on the default parameters."""
        return _default_specs()


OpConfigs = dict[str, OpMagnitudePrunerConfig | None]


class ModuleMagnitudePrunerConfig(_WeightsOnly):
    """What is done to a module and its children.

    Within a module ``module_state_spec`` goes over everything, then ``op_name_config`` over
    ``op_type_config`` over ``op_state_spec``.

    The weights of recurrent layers (``weight_ih_l0``, ``weight_hh_l0``, ``weight_hr_l0``, ...) are
    reached by their own name, else as ``weight``, else by ``*``: so the defaults prune them.

    An op is a call of ``linear``, ``conv1d``, ``lstm`` and so on. Its name is its type, with
    ``_1``, ``_2`` for the second and third call in one module's forward, alone or behind the name
    of the module that makes the call: ``linear``, ``body.0.linear_1``.

    Args:
        op_state_spec: parameter name (``weight``, ``in_proj_weight``, one of a recurrent layer, or
            ``*`` for all) -> spec, None = left dense. Left out: 50 % on ``weight`` and
            ``in_proj_weight``.
        op_type_config: type of op (``linear``, ``conv1d``, ``conv2d``, ``conv3d``,
            ``conv_transpose1d``, ``conv_transpose2d``, ``conv_transpose3d``,
            ``multi_head_attention_forward``, ``lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu``,
            ``lstm_cell``, ``gru_cell``, ``rnn_tanh_cell``, ``rnn_relu_cell``) -> config, None =
            left dense.
        op_name_config: regular expression, matched against whole op names -> config; None = left
            dense. The one listed first counts.
        module_state_spec: parameter name -> spec, for all ops of the module and its children; not
            allowed in a global config. A parameter that it does not name is left to the others.
        sparsity_schedule: overrides the global schedule; a schedule, or a dict with its ``type``.

    Raises:
        ValueError: an unknown field, an activation spec, or a value outside its range.

    Example:
        >>> half = OpMagnitudePrunerConfig()
        >>> config = ModuleMagnitudePrunerConfig(
        ...     op_state_spec=None, op_type_config={"linear": half}
        ... )
        >>> config.spec_for("weight", "linear").target_sparsity
        0.5
        >>> config.spec_for("weight", "conv2d") is None
        True
    """

    op_state_spec: SpecByParameter | None = Field(
        default_factory=_default_specs, description="parameter name -> spec, null = left dense"
    )
    op_type_config: Annotated[OpConfigs, BeforeValidator(none_is_empty)] = Field(
        default_factory=dict, description="type of op -> config, null = left dense"
    )
    op_name_config: Annotated[OpConfigs, BeforeValidator(none_is_empty)] = Field(
        default_factory=dict, description="regular expression over op names -> config"
    )
    module_state_spec: SpecByParameter | None = Field(
        None,
        description="parameter name -> spec, for all ops of the module and its children; "
        "not in global_config",
    )
    sparsity_schedule: Annotated[Any, BeforeValidator(check_schedule)] = Field(
        None, description="schedule of this module, null = the global one"
    )

    _parameters = field_validator("op_state_spec", "module_state_spec")(_check_parameters)

    @field_validator("op_type_config")
    @classmethod
    def _are_op_types(cls, value: OpConfigs) -> OpConfigs:
        for name in value:
            if name not in OP_TYPES:
                raise ValueError(f"{name!r} is no type of op; {nearest(name, OP_TYPES)}")
        return value

    @field_validator("op_name_config")
    @classmethod
    def _are_patterns(cls, value: OpConfigs) -> OpConfigs:
        check_patterns(value)
        return value

    @field_serializer("sparsity_schedule")
    def _dump_schedule(self, value: Any, info: SerializationInfo) -> Any:
        if isinstance(value, SparsityScheduleBase) and value.registry_key() is not None:
            return {"type": value.registry_key(), **value.model_dump(mode=info.mode)}
        if value is not None and info.mode == "json":
            raise ValueError(
                f"{value!r} cannot be written down; allowed: a schedule that is registered "
                "with @SparsityScheduleBase.register"
            )
        return value

    def spec_for(
        self, parameter: str, op_type: str | None = None, op_names: tuple[str, ...] = ()
    ) -> PruningSpec | None:
        """Return the spec of an op's parameter, None when it is left dense."""
        return self.match(parameter, op_type, op_names).spec

    def match(
        self, parameter: str, op_type: str | None, op_names: tuple[str, ...], own: str | None = None
    ) -> OpMatch:
        """Return the spec of an op's parameter, and by how specific a level it was found.

        Args:
            parameter: the name by which specs know it: ``weight`` or ``in_proj_weight``.
            op_type: of the op that uses it.
            op_names: the names of that op.
            own: the name that the module has for it, such as ``weight_hh_l0``; None = the same.
        """
        names = (parameter if own is None else own, parameter)
        covering = self.module_state_spec or {}
        if not covering.keys().isdisjoint((*names, "*")):
            return OpMatch(0, _look_up(covering, *names))
        pattern = first_match(self.op_name_config, op_names)
        if pattern is not None:
            return OpMatch(1, _spec_of(self.op_name_config[pattern], names))
        if op_type in self.op_type_config:
            return OpMatch(2, _spec_of(self.op_type_config[op_type], names))
        return OpMatch(3, _look_up(self.op_state_spec, *names))


def _spec_of(config: OpMagnitudePrunerConfig | None, names: tuple[str, ...]) -> PruningSpec | None:
    return None if config is None else _look_up(config.op_state_spec, *names)
