"""The levels of a config against each other: what counts for which module, and what is refused."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

from coreai_opt.pruning import MagnitudePruner, PruningError
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    OpMagnitudePrunerConfig,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.errors import UnknownModuleError, UnknownOpError, UnknownTypeError
from coreai_opt.pruning.model.stats import count_sparsity
from tests.helpers.pruning.config_levels import (
    PATHS,
    WEIGHTS,
    Block,
    Net,
    Wide,
    at,
    config,
    op,
    pruned,
    to,
)

RAMP = PolynomialDecaySchedule(total_iters=5, power=1)


HIERARCHY = [
    pytest.param(config(0.1), [2, 2, 2, 2], id="global"),
    pytest.param(config(0.1, {nn.Linear: 0.3}), [2, 6, 6, 6], id="type-over-global"),
    pytest.param(config(0.1, {nn.Linear: 0.3, Wide: 0.7}), [2, 6, 14, 6], id="nearest-class"),
    pytest.param(config(0.1, {Wide: 0.7, nn.Linear: 0.3}), [2, 6, 14, 6], id="in-any-order"),
    pytest.param(config(0.1, {nn.Module: 0.3}), [6, 6, 6, 6], id="base-of-all"),
    pytest.param(config(0.1, {nn.Module: 0.3, Wide: 0.7}), [6, 6, 14, 6], id="base-and-own"),
    pytest.param(config(0.1, {Block: 0.3}), [2, 6, 6, 2], id="children-of-a-type"),
    pytest.param(config(0.1, {Block: 0.3, Wide: 0.7}), [2, 6, 14, 2], id="own-type-is-nearer"),
    pytest.param(config(0.1, {Net: 0.3}), [6, 6, 6, 6], id="type-of-the-model"),
    pytest.param(config(0.1, {Net: 0.3, Block: 0.7}), [6, 14, 14, 6], id="nearest-around"),
    pytest.param(config(0.1, {nn.Linear: 0.3}, {"head": 0.9}), [2, 6, 6, 18], id="name-over-type"),
    pytest.param(
        config(0.1, {Wide: 0.3}, {"body": 0.9}), [2, 18, 18, 2], id="parent-name-over-type"
    ),
    pytest.param(config(0.1, names={"body": 0.3, r"body\.second": 0.9}), [2, 6, 18, 2], id="child"),
    pytest.param(
        config(0.1, names={"body.*": 0.3, "body": 0.9}), [2, 6, 6, 2], id="regex-is-nearer"
    ),
    pytest.param(config(0.1, names={".*d": 0.3}), [2, 2, 6, 6], id="regex-whole-match"),
    pytest.param(config(0.1, names={"stem|head": 0.3}), [6, 2, 2, 6], id="regex-either"),
    pytest.param(config(0.1, {nn.Linear: None}), [2, 0, 0, 0], id="no-type"),
    pytest.param(config(0.1, {nn.Linear: None, Wide: 0.7}), [2, 0, 14, 0], id="but-a-subclass"),
    pytest.param(config(0.1, {Wide: None}), [2, 2, 0, 2], id="no-subclass"),
    pytest.param(config(0.1, names={"body": None}), [2, 0, 0, 2], id="no-name"),
    pytest.param(
        config(0.1, names={"body": None, "body.first": 0.9}), [2, 18, 0, 2], id="but-a-child"
    ),
    pytest.param(
        config(0.1, {nn.Linear: 0.3}, {"head": None}), [2, 6, 6, 0], id="no-name-of-a-type"
    ),
    pytest.param(config(None, {nn.Linear: 0.3}), [0, 6, 6, 6], id="type-alone"),
    pytest.param(config(None, None, {"head": 0.9}), [0, 0, 0, 18], id="name-alone"),
]


@pytest.mark.parametrize(("asked", "expected"), HIERARCHY)
def test_hierarchy(asked: MagnitudePrunerConfig, expected: list[int]) -> None:
    assert pruned(asked) == expected
    assert pruned(MagnitudePrunerConfig.from_dict(asked.to_dict())) == expected


@pytest.mark.parametrize("key", PATHS)
def test_a_type_may_be_a_class_or_one_of_its_paths(key: Any) -> None:
    assert pruned(config(0.1, {key: 0.3})) == [2, 6, 6, 6]
    assert config(0.1, {key: 0.3}) == config(0.1, {nn.Linear: 0.3})


def test_a_class_within_a_function_is_known_by_its_path_too() -> None:
    class Local(nn.Linear):
        pass

    path = f"{__name__}.{Local.__qualname__}"
    model = nn.Sequential(nn.Linear(4, 5), Local(5, 4))
    MagnitudePruner(model, config(None, {path: 0.9})).prepare()
    assert [int((layer.weight == 0).sum()) for layer in model] == [0, 18]


def test_a_type_set_again_by_its_path_is_the_same_key() -> None:
    for later in PATHS:
        asked = config(0.1, {nn.Linear: 0.3}).set_module_type(later, at(0.7))
        assert asked.module_type_configs == {nn.Linear: at(0.7)}


OPS = [
    pytest.param({}, 0.1, id="state"),
    pytest.param({"op_type_config": {"linear": op(0.3)}}, 0.3, id="type-over-state"),
    pytest.param({"op_type_config": {"linear": None}}, None, id="no-type"),
    pytest.param({"op_type_config": {"linear": op(None)}}, None, id="no-spec-of-a-type"),
    pytest.param({"op_type_config": {"conv1d": op(0.3)}}, 0.1, id="another-type"),
    pytest.param(
        {"op_type_config": {"linear": op(0.3)}, "op_name_config": {"linear": op(0.7)}},
        0.7,
        id="name-over-type",
    ),
    pytest.param(
        {"op_type_config": {"linear": op(0.3)}, "op_name_config": {"lin": op(0.7)}},
        0.3,
        id="whole-names-only",
    ),
    pytest.param({"op_name_config": {r"body\.first\.lin.*": op(0.7)}}, 0.7, id="dotted-name"),
    pytest.param({"op_name_config": {"linear": None}}, None, id="no-name"),
    pytest.param(
        {"op_name_config": {".*": op(0.7), "linear": None}}, 0.7, id="first-listed-of-two-names"
    ),
    pytest.param(
        {"op_name_config": {"linear": op(0.7)}, "module_state_spec": {"weight": to(0.9)}},
        0.9,
        id="module-state-over-all",
    ),
    pytest.param(
        {"op_name_config": {"linear": op(0.7)}, "module_state_spec": {"weight": None}},
        None,
        id="no-module-state",
    ),
    pytest.param(
        {"op_name_config": {"linear": op(0.7)}, "module_state_spec": {"in_proj_weight": to(0.9)}},
        0.7,
        id="module-state-of-another-parameter",
    ),
    pytest.param(
        {"module_state_spec": {"*": to(0.9), "weight": None}}, None, id="named-parameter-over-star"
    ),
]


@pytest.mark.parametrize(("fields", "expected"), OPS)
def test_levels_within_a_module(fields: Any, expected: float | None) -> None:
    names = ("linear", "body.first.linear")
    spec = at(0.1, **fields).spec_for("weight", "linear", names)
    assert (None if spec is None else spec.target_sparsity) == expected


def test_an_ops_config_left_out_is_half_on_both_parameters() -> None:
    half = ModuleMagnitudePrunerConfig(
        op_state_spec=None, op_type_config={"linear": OpMagnitudePrunerConfig()}
    )
    assert [half.spec_for(name, "linear") for name in ("weight", "in_proj_weight")] == [to(0.5)] * 2
    assert half.spec_for("weight", "conv1d") is None


def test_module_state_reaches_the_children_by_name_and_by_type() -> None:
    covering = ModuleMagnitudePrunerConfig(module_state_spec={"*": to(0.9)})
    by_name = MagnitudePrunerConfig(global_config=None, module_name_configs={"body": covering})
    by_type = MagnitudePrunerConfig(global_config=None, module_type_configs={Block: covering})
    assert pruned(by_name) == pruned(by_type) == [0, 18, 18, 0]
    with pytest.raises(ValidationError, match="module_state_spec is not allowed in global_config"):
        MagnitudePrunerConfig(global_config=covering)
    with pytest.raises(ValidationError, match="module_state_spec is not allowed"):
        MagnitudePrunerConfig().set_global(covering)


@pytest.mark.parametrize(
    "own",
    [
        ConstantSparsitySchedule(begin_step=2),
        {"type": "constant", "begin_step": 2},
    ],
    ids=["schedule", "dict"],
)
def test_a_modules_schedule_goes_over_the_global_one(own: Any) -> None:
    asked = MagnitudePrunerConfig(
        global_config=at(0.5, RAMP),
        module_type_configs={Wide: at(0.25)},
        module_name_configs={"head": at(0.9, own)},
    )
    pruner = MagnitudePruner(Net(), asked)
    model = pruner.prepare()
    seen = []
    for _ in range(4):
        pruner.step()
        seen.append([int((model.get_submodule(n).weight == 0).sum()) for n in WEIGHTS])
    assert seen == [[2, 2, 1, 0], [5, 5, 2, 18], [7, 7, 3, 18], [10, 10, 5, 18]]


REFUSED: list[Any] = [
    pytest.param(
        {"op_state_spec": {"a.b": None}},
        r"'a\.b' is no name of a parameter.*weight",
        id="parameter",
    ),
    pytest.param({"module_state_spec": {"wieght": None}}, "did you mean 'weight'", id="module"),
    pytest.param({"op_type_config": {"conv": None}}, "'conv' is no type of op.*conv1d", id="op"),
    pytest.param({"op_name_config": {"a(": None}}, r"'a\(' is no regular expression", id="pattern"),
    pytest.param({"op_types": {}}, "op_types", id="field"),
    pytest.param({"op_type_config": {"linear": {"op_state": None}}}, "op_state", id="ops-field"),
    pytest.param({"op_input_spec": {"*": {}}}, "does not support op_input_spec", id="inputs"),
    pytest.param({"op_output_spec": {"*": {}}}, "does not support op_output_spec", id="outputs"),
    pytest.param(
        {"module_input_spec": 1}, "does not support module_input_spec", id="module-inputs"
    ),
    pytest.param(
        {"op_type_config": {"linear": {"op_input_spec": {"*": {}}}}},
        "pruning does not support op_input_spec",
        id="inputs-of-a-type",
    ),
    pytest.param(
        {"op_name_config": {"linear": {"op_output_spec": {"*": {}}}}},
        "pruning does not support op_output_spec",
        id="outputs-of-a-name",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_a_module_cannot_be_told_is_refused_at_every_level(fields: Any, message: str) -> None:
    levels: list[Any] = [
        {"global_config": fields},
        {"module_type_configs": {nn.Linear: fields}},
        {"module_name_configs": {"head": fields}},
    ]
    with pytest.raises(ValidationError, match=message):
        ModuleMagnitudePrunerConfig(**fields)
    for level in levels:
        with pytest.raises(ValidationError, match=message):
            MagnitudePrunerConfig(**level)


def test_activation_specs_of_none_are_let_through() -> None:
    nothing: Any = {"op_input_spec": None, "op_output_spec": None}
    assert OpMagnitudePrunerConfig(**nothing) == OpMagnitudePrunerConfig()
    assert ModuleMagnitudePrunerConfig(**nothing) == ModuleMagnitudePrunerConfig()
    assert MagnitudePrunerConfig(global_config=nothing) == MagnitudePrunerConfig()


@pytest.mark.parametrize("key", [3, None, ("torch.nn.Linear",)])
def test_a_type_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(ValidationError, match="is no type; allowed: a class, or its dotted path"):
        MagnitudePrunerConfig(module_type_configs={key: None})


ASTRAY = [
    pytest.param(config(names={"haed": 0.1}), UnknownModuleError, "did you mean 'head'", id="name"),
    pytest.param(config(names={"bod": 0.1}), UnknownModuleError, r"stem, body\.first", id="part"),
    pytest.param(config(names={"haed": None}), UnknownModuleError, "'haed'", id="dense-name"),
    pytest.param(
        config(types={nn.Conv2d: 0.1}), UnknownTypeError, r"Conv2d'.*torch\.nn\.Conv1d", id="type"
    ),
    pytest.param(config(types={"my.Net": 0.1}), UnknownTypeError, r"'my\.Net' is the", id="path"),
    pytest.param(config(types={nn.ReLU: None}), UnknownTypeError, r"nn\.ReLU'", id="dense-type"),
    pytest.param(
        MagnitudePrunerConfig(global_config=at(0.1, op_type_config={"conv2d": None})),
        UnknownOpError,
        "'conv2d' matches no op.*allowed: conv1d, linear",
        id="op-type",
    ),
    pytest.param(
        MagnitudePrunerConfig(
            module_name_configs={"body": at(0.1, op_type_config={"conv1d": None})}
        ),
        UnknownOpError,
        "'conv1d' matches no op that its config reaches; allowed: linear",
        id="op-type-elsewhere",
    ),
    pytest.param(
        MagnitudePrunerConfig(global_config=at(0.1, op_name_config={"linear_1": None})),
        UnknownOpError,
        r"'linear_1'.*allowed: body\.first\.linear, body\.second\.linear, conv1d, head\.linear",
        id="op-name",
    ),
]


@pytest.mark.parametrize(("asked", "error", "message"), ASTRAY)
def test_what_matches_nothing_is_answered_with_what_exists(
    asked: MagnitudePrunerConfig, error: type[PruningError], message: str
) -> None:
    model = Net()
    with pytest.raises(error, match=message):
        MagnitudePruner(model, asked).prepare()
    assert list(model.state_dict()) == list(Net().state_dict())


def test_a_type_without_a_weight_may_be_left_dense_and_not_pruned() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU())
    MagnitudePruner(model, config(0.1, {nn.ReLU: None})).prepare()
    with pytest.raises(UnknownTypeError, match=r"ReLU' is the .*allowed: torch\.nn\.Linear;"):
        MagnitudePruner(
            nn.Sequential(nn.Linear(4, 5), nn.ReLU()), config(0.1, {nn.ReLU: 0.3})
        ).prepare()


def test_a_path_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\n\nclass Layer(nn.Linear):\n    pass\n"
    (tmp_path / "not_loaded_yet.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    asked = config(None, {"not_loaded_yet.Layer": 0.9})
    assert "not_loaded_yet" not in sys.modules
    layer = importlib.import_module("not_loaded_yet").Layer
    monkeypatch.delitem(sys.modules, "not_loaded_yet")
    model = MagnitudePruner(nn.Sequential(nn.Linear(4, 5), layer(5, 4)), asked).prepare()
    assert [int((part.weight == 0).sum()) for part in model] == [0, 18]


def test_an_op_that_one_of_two_equal_configs_reaches_is_reached() -> None:
    both = at(0.1, op_type_config={"conv1d": op(0.3), "linear": op(0.7)})
    asked = MagnitudePrunerConfig(
        global_config=None, module_name_configs={"stem": both, "head": both}
    )
    assert (
        pruned(asked) == pruned(MagnitudePrunerConfig.from_dict(asked.to_dict())) == [6, 0, 0, 14]
    )
    assert count_sparsity(MagnitudePruner(Net(), asked).prepare()).elements == 40
