"""What is pruned and how far: specs, and the config that picks one for each module."""

from typing import Any

import pytest
from pydantic import ValidationError

from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.spec import (
    MagnitudePruneImpl,
    PruningSpec,
    Unstructured,
    default_weight_pruning_spec,
)

RAMP = PolynomialDecaySchedule(total_iters=10, power=1)


class Duck:
    """No schedule by its class, but by what it can do."""

    def compute_sparsity(
        self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
    ) -> float:
        return target_sparsity


def at(sparsity: float) -> ModuleMagnitudePrunerConfig:
    """A config told by its sparsity."""
    return ModuleMagnitudePrunerConfig(op_state_spec={"*": PruningSpec(target_sparsity=sparsity)})


def found(config: MagnitudePrunerConfig, name: str) -> float | None:
    """The sparsity that a config has for the weight of a module, None = left dense."""
    module_config = config.get_module_config(name)
    spec = None if module_config is None else module_config.spec_for("weight")
    return None if spec is None else spec.target_sparsity


def by_name(**configs: float | None) -> MagnitudePrunerConfig:
    """A config of sparsities by name; two underscores are a dot."""
    names = {name.replace("__", r"\."): value for name, value in configs.items()}
    return MagnitudePrunerConfig(
        module_name_configs={n: None if v is None else at(v) for n, v in names.items()}
    )


def test_a_spec_is_half_unstructured_by_magnitude_unless_said() -> None:
    spec = PruningSpec()
    assert spec.target_sparsity == 0.5
    assert spec.pruning_scheme == Unstructured()
    assert spec.pruning_algo is MagnitudePruneImpl
    assert default_weight_pruning_spec() == spec


@pytest.mark.parametrize("target", [0, 0.0, 0.37, 1, 1.0])
def test_target_sparsity_includes_its_bounds(target: float) -> None:
    assert PruningSpec(target_sparsity=target).target_sparsity == target


BAD_SPECS: list[tuple[str, Any]] = [
    ("target_sparsity", -0.01),
    ("target_sparsity", 1.01),
    ("target_sparsity", float("nan")),
    ("target_sparsity", "half"),
    ("target_sparsity", None),
    ("pruning_scheme", {"type": "unheard"}),
    ("pruning_scheme", {}),
    ("pruning_scheme", {"type": "unstructured", "axis": 1}),
    ("pruning_scheme", "unstructured"),
    ("pruning_algo", "unheard"),
    ("pruning_algo", int),
    ("pruning_algo", None),
    ("pruning_algorithm", "default"),
]


@pytest.mark.parametrize(("field", "value"), BAD_SPECS)
def test_a_spec_refuses_a_bad_value_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        PruningSpec(**{field: value})


def test_a_scheme_may_be_a_dict_with_its_type() -> None:
    spec = PruningSpec(pruning_scheme={"type": "unstructured"})  # type: ignore[arg-type]
    assert spec.pruning_scheme == Unstructured()


def test_an_unknown_scheme_is_answered_with_what_exists() -> None:
    with pytest.raises(ValueError, match=r"allowed: unstructured.*did you mean 'unstructured'"):
        PruningSpec(pruning_scheme={"type": "unstructurd"})  # type: ignore[arg-type]


@pytest.mark.parametrize("algo", ["default", MagnitudePruneImpl])
def test_an_algo_by_key_or_class_is_stored_as_the_class(algo: Any) -> None:
    assert PruningSpec(pruning_algo=algo).pruning_algo is MagnitudePruneImpl


def test_a_spec_round_trips_and_its_scheme_says_its_type() -> None:
    spec = PruningSpec(target_sparsity=0.9)
    dump = spec.model_dump()
    assert dump["pruning_scheme"] == {"type": "unstructured"}
    assert dump["pruning_algo"] is MagnitudePruneImpl
    assert PruningSpec(**dump) == spec != PruningSpec()


def test_without_a_word_every_weight_is_halved() -> None:
    config = MagnitudePrunerConfig()
    assert found(config, "any.name") == found(config, "") == 0.5
    module_config = config.get_module_config("any.name")
    assert module_config is not None
    assert module_config.spec_for("in_proj_weight") == default_weight_pruning_spec()
    assert module_config.spec_for("bias") is None
    assert module_config.sparsity_schedule is None


def test_a_config_reaches_the_children_but_not_the_neighbours() -> None:
    config = by_name(body=0.9)
    assert found(config, "body") == found(config, "body.0") == found(config, "body.0.conv") == 0.9
    assert found(config, "body2") == found(config, "other.body") == 0.5


def test_a_bad_value_deep_inside_is_refused_by_name() -> None:
    wrong: Any = {"head": {"op_state_spec": {"weight": {"target_sparsity": 2}}}}
    with pytest.raises(ValidationError, match=r"head\.op_state_spec\.weight\.target_sparsity"):
        MagnitudePrunerConfig(module_name_configs=wrong)


def test_an_assigned_value_is_checked_as_well() -> None:
    config = ModuleMagnitudePrunerConfig()
    with pytest.raises(ValidationError, match="no schedule"):
        config.sparsity_schedule = 3
    assert config.sparsity_schedule is None


def test_name_configs_of_none_are_empty() -> None:
    config = MagnitudePrunerConfig(module_name_configs=None)  # type: ignore[arg-type]
    assert config.module_name_configs == {}
    assert config == MagnitudePrunerConfig()


def test_an_exact_parameter_name_goes_over_the_star() -> None:
    low, high = PruningSpec(target_sparsity=0.1), PruningSpec(target_sparsity=0.9)
    config = ModuleMagnitudePrunerConfig(op_state_spec={"*": low, "in_proj_weight": high})
    assert (config.spec_for("weight"), config.spec_for("in_proj_weight")) == (low, high)
    config = ModuleMagnitudePrunerConfig(op_state_spec={"weight": None, "*": high})
    assert (config.spec_for("weight"), config.spec_for("in_proj_weight")) == (None, high)


@pytest.mark.parametrize("specs", [None, {}, {"*": None}, {"weight": None}])
def test_a_parameter_without_a_spec_is_left_dense(specs: Any) -> None:
    assert ModuleMagnitudePrunerConfig(op_state_spec=specs).spec_for("weight") is None


def test_a_schedule_may_be_a_dict_with_its_type() -> None:
    fields = {"type": "polynomial_decay", "total_iters": 10, "power": 1}
    assert ModuleMagnitudePrunerConfig(sparsity_schedule=fields).sparsity_schedule == RAMP


def test_an_object_with_compute_sparsity_is_a_schedule() -> None:
    duck = Duck()
    assert ModuleMagnitudePrunerConfig(sparsity_schedule=duck).sparsity_schedule is duck
    assert ModuleMagnitudePrunerConfig(sparsity_schedule=RAMP).sparsity_schedule is RAMP


WRONG_SCHEDULES = [
    pytest.param(3, "3 is no schedule: it has no compute_sparsity", id="number"),
    pytest.param("constant", "'constant' is no schedule", id="bare key"),
    pytest.param({"begin_step": 3}, "needs a 'type'; allowed: constant", id="no type"),
    pytest.param({"type": "konstant"}, "did you mean 'constant'", id="unknown type"),
    pytest.param({"type": "constant", "begin_step": -1}, "begin_step", id="bad field"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_SCHEDULES)
def test_what_is_no_schedule_is_refused_with_a_reason(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModuleMagnitudePrunerConfig(sparsity_schedule=wrong)


def test_uniform_takes_every_weight_to_one_sparsity() -> None:
    config = MagnitudePrunerConfig.uniform(0.9, RAMP)
    module_config = config.get_module_config("any.name")
    assert module_config is not None
    assert module_config.spec_for("weight") == PruningSpec(target_sparsity=0.9)
    assert module_config.spec_for("in_proj_weight") == PruningSpec(target_sparsity=0.9)
    assert module_config.sparsity_schedule is RAMP
    assert config.module_name_configs == {}


@pytest.mark.parametrize("schedule", [None, RAMP, ConstantSparsitySchedule(begin_step=3)])
def test_a_config_round_trips_with_its_schedule(schedule: Any) -> None:
    config = MagnitudePrunerConfig.uniform(0.9, schedule)
    config.module_name_configs = {"head": None, "body": at(0.1)}
    assert MagnitudePrunerConfig(**config.model_dump()) == config
