"""Specs by names of parameters, also of those that a module hands to functional calls itself."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    OpMagnitudePrunerConfig,
    PruningSpec,
)
from coreai_opt.pruning.errors import UnknownModuleError, UnknownParameterError

BATCH = (torch.rand(2, 3, 5, 5),)


class Functional(nn.Module):
    """A convolution and a linear map by parameters of its own: 108 and 400 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_weight = nn.Parameter(torch.rand(4, 3, 3, 3))
        self.fc_weight = nn.Parameter(torch.rand(4, 100))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.conv2d(images, self.conv_weight, padding=1).flatten(1)
        return F.linear(hidden, self.fc_weight, self.bias)


class Net(nn.Module):
    """The same with a layer of 40 weights behind it, and a weight of 50 of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Functional()
        self.head = nn.Linear(4, 10)
        self.out_weight = nn.Parameter(torch.rand(5, 10))

    def forward(self, images: Tensor) -> Tensor:
        return F.linear(self.head(self.body(images)), self.out_weight)


def to(sparsity: float) -> PruningSpec:
    return PruningSpec(target_sparsity=sparsity)


def module(**fields: Any) -> ModuleMagnitudePrunerConfig:
    return ModuleMagnitudePrunerConfig(**fields)


def zeros(model: nn.Module) -> dict[str, int]:
    """Counted zeros of each weight, by the last part of its name."""
    names = {"conv_weight": "body", "fc_weight": "body", "weight": "head", "out_weight": ""}
    owners = {name: model.get_submodule(path) for name, path in names.items()}
    return {name: int((getattr(owner, name) == 0).sum()) for name, owner in owners.items()}


def pruned(config: MagnitudePrunerConfig, inputs: Any = BATCH) -> dict[str, int]:
    return zeros(MagnitudePruner(Net(), config).prepare(inputs))


def only(**fields: Any) -> MagnitudePrunerConfig:
    return MagnitudePrunerConfig(global_config=module(**fields))


CASES: list[Any] = [
    ({"op_state_spec": {"conv_weight": to(0.75)}}, (81, 0, 0, 0)),
    ({"op_state_spec": {"conv_weight": to(0.75), "fc_weight": to(0.25)}}, (81, 100, 0, 0)),
    ({"op_state_spec": {"conv_weight": to(0.75), "weight": to(0.5)}}, (81, 200, 20, 25)),
    ({"op_state_spec": {"conv_weight": None, "*": to(0.5)}}, (0, 200, 20, 25)),
    ({"op_state_spec": {"weight": to(0.5), "bias": None}}, (54, 200, 20, 25)),
    (
        {
            "op_state_spec": None,
            "op_type_config": {
                "linear": OpMagnitudePrunerConfig(op_state_spec={"fc_weight": to(0.25)})
            },
        },
        (0, 100, 0, 0),
    ),
    (
        {"op_state_spec": None, "op_name_config": {"conv2d": OpMagnitudePrunerConfig()}},
        (54, 0, 0, 0),
    ),
    (
        {"op_state_spec": None, "op_name_config": {r"body\.linear": OpMagnitudePrunerConfig()}},
        (0, 200, 0, 0),
    ),
    (
        {"op_state_spec": None, "op_name_config": {"linear": OpMagnitudePrunerConfig()}},
        (0, 200, 20, 25),
    ),
    ({}, (54, 200, 20, 25)),
]


@pytest.mark.parametrize(("fields", "expected"), CASES)
def test_a_spec_is_found_by_the_name_of_the_parameter(
    fields: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert tuple(pruned(only(**fields)).values()) == expected


def test_a_module_alone_may_be_the_model() -> None:
    model = Functional()
    config = only(op_state_spec={"conv_weight": to(0.75)})
    MagnitudePruner(model, config).prepare(BATCH)
    assert int((model.conv_weight == 0).sum()) == 81
    assert list(MagnitudePruner(Functional(), config).prepare(BATCH).parametrizations) == [
        "conv_weight"
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"op_state_spec": {"convweight": to(0.5)}}, "did you mean 'conv_weight'"),
        ({"op_state_spec": {"weight": to(0.5), "nothing": to(0.5)}}, "'nothing' is no parameter"),
        ({"op_state_spec": {"weight": to(0.5), "nothing": None}}, "'nothing' is no parameter"),
        ({"op_state_spec": {"bias": to(0.5)}}, "'bias' is no parameter that an op has as its weig"),
        ({"op_state_spec": {"in_proj_weight": to(0.5)}}, "'in_proj_weight' is no parameter"),
        (
            {"op_type_config": {"conv2d": {"op_state_spec": {"fc_weight": to(0.5)}}}},
            r"'fc_weight' is no .*allowed: conv_weight, \*",
        ),
        (
            {"op_name_config": {"linear": {"op_state_spec": {"conv_weight": to(0.5)}}}},
            r"'conv_weight' is no .*allowed: fc_weight, out_weight, weight, \*",
        ),
    ],
)
def test_a_name_that_no_op_uses_lists_what_exists(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownParameterError, match=message) as caught:
        pruned(only(**fields))
    assert "example inputs" not in str(caught.value)
    if "conv2d" not in str(fields) and "linear" not in str(fields):
        assert caught.value.existing == ["conv_weight", "fc_weight", "out_weight", "weight"]


def test_a_wrong_name_in_a_module_lists_that_module() -> None:
    config = MagnitudePrunerConfig(
        module_name_configs={"body": module(module_state_spec={"wait": to(0.9)})}
    )
    with pytest.raises(
        UnknownParameterError, match=r"'wait' .*allowed: conv_weight, fc_weight, \*"
    ):
        pruned(config)


def test_by_module_type_a_parameter_of_a_functional_call_is_told_from_a_slip() -> None:
    config = only(op_state_spec={"conv_weight": to(0.75)})
    with pytest.raises(UnknownParameterError, match="only with example inputs"):
        pruned(config, None)
    with pytest.raises(UnknownParameterError, match="only with example inputs"):
        MagnitudePruner(Functional(), config).prepare()
    named = MagnitudePrunerConfig(module_name_configs={"body": module()})
    with pytest.raises(UnknownModuleError, match="only with example inputs"):
        pruned(named, None)
    with pytest.raises(UnknownModuleError) as caught:
        pruned(MagnitudePrunerConfig(module_name_configs={"bodi": module()}), None)
    assert "example inputs" not in str(caught.value)


def test_a_slip_in_a_default_name_is_seen_without_a_model() -> None:
    with pytest.raises(ValueError, match="did you mean 'weight'"):
        only(op_state_spec={"wieght": to(0.5)})


def test_attention_knows_its_parts_by_their_own_names() -> None:
    spec = {"q_proj_weight": to(0.75), "in_proj_weight": to(0.25), "weight": None}
    attention = nn.MultiheadAttention(4, 2, kdim=6, vdim=6)
    MagnitudePruner(attention, only(op_state_spec=spec)).prepare()
    parts = (attention.q_proj_weight, attention.k_proj_weight, attention.out_proj.weight)
    assert [int((part == 0).sum()) for part in parts] == [12, 6, 0]


def test_the_root_has_the_empty_name() -> None:
    root = {"": module(op_state_spec={"out_weight": to(0.75)})}
    config = MagnitudePrunerConfig(global_config=None, module_name_configs=root)
    assert tuple(pruned(config).values()) == (0, 0, 0, 37)
    assert config.get_module_config("") is config.get_module_config("body.conv") is root[""]


def test_the_root_reaches_all_ops_of_its_children() -> None:
    root = {"": module(module_state_spec={"weight": to(0.75)})}
    config = MagnitudePrunerConfig(global_config=None, module_name_configs=root)
    assert tuple(pruned(config).values()) == (81, 300, 30, 37)
    nearer = config.model_copy(deep=True).set_module_name("head", None)
    assert tuple(pruned(nearer).values()) == (81, 300, 0, 37)
    with pytest.warns(UserWarning, match="leaves every weight dense"):
        assert tuple(pruned(MagnitudePrunerConfig().without("")).values()) == (0, 0, 0, 0)


def test_a_model_of_one_layer_is_named_by_nothing() -> None:
    config = MagnitudePrunerConfig(
        global_config=None, module_name_configs={"": module(op_state_spec={"weight": to(0.75)})}
    )
    model = MagnitudePruner(nn.Linear(4, 10), config).prepare()
    assert int((model.weight == 0).sum()) == 30
    assert MagnitudePrunerConfig.from_yaml(config.to_yaml()) == config


def test_the_root_is_no_pattern_of_others() -> None:
    config = MagnitudePrunerConfig(
        global_config=None,
        module_name_configs={"(body)?": module(module_state_spec={"*": to(0.5)})},
    )
    assert tuple(pruned(config).values()) == (54, 200, 0, 0)
