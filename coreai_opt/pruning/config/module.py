"""Module config: the inner levels of a pruner's config, for the ops of one module."""

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

# What is pruned where nothing is said: names by which specs know the parameters of known layers.
DEFAULT_PARAMETERS = ("weight", "in_proj_weight")

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
    return {name: default_weight_pruning_spec() for name in DEFAULT_PARAMETERS}


def none_is_empty(value: Any) -> Any:
    """Take None for an empty dict, as it stands in a config file."""
    return {} if value is None else value


def check_schedule(value: Any) -> Any:
    """Build a schedule from a dict; let any object that has ``compute_sparsity`` through."""
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
        # What there is only a model says; but this is no name that somebody has chosen.
        slip = next((key for key in DEFAULT_PARAMETERS if sorted(key) == sorted(name)), name)
        if slip != name:
            raise ValueError(f"{name!r} is no parameter of an op; did you mean {slip!r}?")
        if name != "*" and not name.isidentifier() and not name.isdecimal():
            raise ValueError(
                f"{name!r} is no name of a parameter; allowed: the name that a module gives it, "
                "such as weight, or *"
            )
    return value


def _look_up(specs: SpecByParameter | None, names: tuple[str, ...]) -> PruningSpec | None:
    """Return the spec under the first name that has one, else that of ``*``."""
    specs = specs or {}
    return next((specs[name] for name in (*names, "*") if name in specs), None)


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
        op_state_spec: name of a parameter, or ``*`` for all -> spec, None = left dense. Left out:
            50 % on ``weight`` and ``in_proj_weight``.

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

    The name of a parameter is the one that its module gives it. ``weight`` and ``in_proj_weight``
    stand as well for any parameter that an op is given as such: ``weight`` for the ``conv_weight``
    of a module that calls ``F.conv2d(x, self.conv_weight)``. Its own name goes over that, and both
    over ``*``.

    Of recurrent layers ``weight`` stands for all weights: ``weight_ih_l0``, ``weight_hh_l0`` and
    so on.

    An op is a call of ``linear``, ``conv1d``, ``lstm`` and so on. Its name is its type, with
    ``_1``, ``_2`` for the second and third call in one module's forward, alone or behind the name
    of the module that makes the call: ``linear``, ``body.0.linear_1``.

    Args:
        op_state_spec: name of a parameter, or ``*`` for all -> spec, None = left dense. Left out:
            50 % on ``weight`` and ``in_proj_weight``.
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
        return self.match((parameter,), op_type, op_names).spec

    def match(
        self, names: tuple[str, ...], op_type: str | None, op_names: tuple[str, ...]
    ) -> OpMatch:
        """Return the spec of an op's parameter, and by how specific a level it was found.

        Args:
            names: of the parameter, the one that goes over the others first.
            op_type: of the op.
            op_names: all names of the op.
        """
        covering = self.module_state_spec or {}
        if any(name in covering for name in (*names, "*")):
            return OpMatch(0, _look_up(covering, names))
        pattern = first_match(self.op_name_config, op_names)
        if pattern is not None:
            return OpMatch(1, _spec_of(self.op_name_config[pattern], names))
        if op_type in self.op_type_config:
            return OpMatch(2, _spec_of(self.op_type_config[op_type], names))
        return OpMatch(3, _look_up(self.op_state_spec, names))


def _spec_of(config: OpMagnitudePrunerConfig | None, names: tuple[str, ...]) -> PruningSpec | None:
    return None if config is None else _look_up(config.op_state_spec, names)
