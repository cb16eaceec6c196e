"""Setting a config up by methods, and writing it down."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, PruningError
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    MagnitudePrunerConfig,
    OpMagnitudePrunerConfig,
    PolynomialDecaySchedule,
)
from coreai_opt.pruning.config.pruner import KEY
from coreai_opt.pruning.spec import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    PruneImplBase,
    PruningSpec,
)
from tests.helpers.pruning.config_levels import PATHS, Block, Net, Wide, at, config, op, pruned

RAMP = PolynomialDecaySchedule(total_iters=5, power=1, initial_sparsity=0.1)


class Largest(PruneImplBase):
    """A criterion of one's own, known by its path alone."""

    def score(self, weight: Tensor) -> Tensor:
        return -weight.abs()


def test_setters_return_the_config_and_are_read_back() -> None:
    asked = MagnitudePrunerConfig()
    assert asked.set_global(at(0.1)) is asked
    assert asked.set_module_type(nn.Conv1d, at(0.3)) is asked
    assert asked.set_module_name("head", at(0.9)) is asked
    assert asked.set_module_type(Wide, None) is asked
    assert asked == config(0.1, {nn.Conv1d: 0.3, Wide: None}, {"head": 0.9})
    assert asked.get_module_config("head", nn.Linear(1, 1)) == at(0.9)
    assert asked.get_module_config("head.inner", nn.Conv1d(1, 1, 1)) == at(0.9)
    assert asked.get_module_config("stem", nn.Conv1d(1, 1, 1)) == at(0.3)
    assert asked.get_module_config("body.second", Wide(1, 1)) is None
    assert asked.get_module_config("stem") == asked.get_module_config("") == at(0.1)
    assert pruned(asked) == [6, 2, 0, 18]


@pytest.mark.parametrize("share", [0.3, None])
def test_set_module_name_goes_before_what_was_set_earlier(share: float | None) -> None:
    asked = config(0.1, None, {"head": 0.7, "he.*": 0.9})
    asked.set_module_name("he.*", at(share))
    assert list(asked.module_name_configs) == ["he.*", "head"]
    assert asked.get_module_config("head") == at(share)


def test_setters_check_what_they_are_given() -> None:
    asked: Any = config(0.1)
    with pytest.raises(ValueError, match="is no regular expression"):
        asked.set_module_name("a(", None)
    with pytest.raises(ValueError, match="3 is no type"):
        asked.set_module_type(3, None)
    with pytest.raises(ValueError, match="global_config"):
        asked.set_global(3)
    assert asked == config(0.1)


SELECTED = [
    pytest.param(config(0.1), ["head"], [0, 0, 0, 2], id="name"),
    pytest.param(config(0.1), ["body"], [0, 2, 2, 0], id="children"),
    pytest.param(config(0.1), [r"body\.second", "stem"], [2, 0, 2, 0], id="two-names"),
    pytest.param(config(0.1), [".*d"], [0, 0, 2, 2], id="pattern"),
    pytest.param(config(0.1), [nn.Linear], [0, 2, 2, 2], id="class-and-subclass"),
    pytest.param(config(0.1), ["torch.nn.Linear"], [0, 2, 2, 2], id="path"),
    pytest.param(config(0.1), [Wide, "stem"], [2, 0, 2, 0], id="class-and-name"),
    pytest.param(config(0.1), [Block], [0, 2, 2, 0], id="children-of-a-class"),
    pytest.param(config(0.1, None, {"head": 0.9}), ["head"], [0, 0, 0, 18], id="own-name"),
    pytest.param(config(0.1, {Wide: 0.9}), [Wide], [0, 0, 18, 0], id="own-type"),
    pytest.param(config(0.1, {nn.Module: 0.9}), [Wide], [0, 0, 18, 0], id="type-by-its-base"),
    pytest.param(config(0.1, {Wide: 0.9}), [nn.Linear], [0, 2, 18, 2], id="a-subclass-has-its-own"),
    pytest.param(
        config(0.1, {nn.Linear: 0.9}), ["torch.nn.Linear"], [0, 18, 18, 18], id="own-path"
    ),
    pytest.param(config(0.1, None, {"body": 0.9}), ["body.first"], [0, 18, 0, 0], id="parents"),
    pytest.param(
        config(0.1, None, {"bo.*": 0.9}), [r"body\.first"], [0, 18, 0, 0], id="pattern-of"
    ),
    pytest.param(config(0.1, None, {"body.first": 0.9}), ["body"], [0, 18, 2, 0], id="child-stays"),
    pytest.param(
        config(0.1, None, {r"body\.first": 0.9}), ["body|stem"], [2, 18, 2, 0], id="escaped"
    ),
    pytest.param(config(0.1, None, {"body.first": None}), ["body"], [0, 0, 2, 0], id="dense-child"),
    pytest.param(config(0.1, None, {"head": None}), [nn.Linear], [0, 2, 2, 0], id="dense-name"),
    pytest.param(config(0.1, {Wide: None}), [nn.Linear], [0, 2, 0, 2], id="dense-subclass"),
    pytest.param(config(0.1, {Wide: None}), [Block], [0, 2, 0, 0], id="dense-type-within"),
    pytest.param(config(0.1, {Wide: 0.9}, {"stem": 0.9}), ["head"], [0, 0, 0, 2], id="others-go"),
    pytest.param(config(None, None, {"head": 0.9}), ["head"], [0, 0, 0, 18], id="no-global"),
]


@pytest.mark.parametrize(("asked", "targets", "expected"), SELECTED)
def test_only_for(asked: MagnitudePrunerConfig, targets: list[Any], expected: list[int]) -> None:
    asked = copy.deepcopy(asked)
    assert asked.only_for(*targets) is asked
    assert asked.global_config is None
    assert pruned(asked) == expected
    again = MagnitudePrunerConfig.from_yaml(asked.to_yaml())
    assert again == asked
    assert pruned(again) == expected
    assert pruned(again.only_for(*targets)) == expected


LEFT_OUT = [
    pytest.param(config(0.1), ["head"], [2, 2, 2, 0], id="name"),
    pytest.param(config(0.1), ["body"], [2, 0, 0, 2], id="children"),
    pytest.param(config(0.1), ["stem|head"], [0, 2, 2, 0], id="pattern"),
    pytest.param(config(0.1), [nn.Linear], [2, 0, 0, 0], id="class-and-subclass"),
    pytest.param(config(0.1), ["torch.nn.modules.linear.Linear"], [2, 0, 0, 0], id="path"),
    pytest.param(config(0.1), [Wide, "stem"], [0, 2, 0, 2], id="class-and-name"),
    pytest.param(config(0.1, {nn.Linear: 0.9}), [nn.Linear], [2, 0, 0, 0], id="own-type"),
    pytest.param(config(0.1, {nn.Linear: 0.9}), [Wide], [2, 18, 0, 18], id="subclass"),
    pytest.param(config(0.1, {Wide: 0.9}), [nn.Linear], [2, 0, 0, 0], id="subclass-goes-too"),
    pytest.param(config(0.1, {nn.Module: 0.9}), [Wide], [18, 18, 0, 18], id="base-stays"),
    pytest.param(config(0.1, None, {"head": 0.9}), ["head"], [2, 2, 2, 0], id="own-name"),
    pytest.param(config(0.1, None, {"body.first": 0.9}), ["body"], [2, 0, 0, 2], id="child"),
    pytest.param(config(0.1, None, {r"body\.first": 0.9}), ["b.*y"], [2, 0, 0, 2], id="escaped"),
    pytest.param(config(0.1, None, {"b.*": 0.9}), ["body.first"], [2, 0, 18, 2], id="parent-stays"),
    pytest.param(config(0.1, None, {"head": 0.9}), [nn.Linear], [2, 0, 0, 18], id="name-over-type"),
]


@pytest.mark.parametrize(("asked", "targets", "expected"), LEFT_OUT)
def test_without(asked: MagnitudePrunerConfig, targets: list[Any], expected: list[int]) -> None:
    asked = copy.deepcopy(asked)
    assert asked.without(*targets) is asked
    assert pruned(asked) == expected
    again = MagnitudePrunerConfig.from_yaml(asked.to_yaml())
    assert again == asked
    assert pruned(again.without(*targets)) == expected


def test_only_for_and_without_together() -> None:
    assert pruned(config(0.1).only_for(nn.Linear).without("head")) == [0, 2, 2, 0]
    assert pruned(config(0.1).without("head").only_for("torch.nn.Linear")) == [0, 2, 2, 0]
    assert pruned(config(0.1).without("body.first").only_for("body", "stem")) == [2, 0, 2, 0]
    assert pruned(config(0.1).only_for("body").without(Wide)) == [0, 2, 2, 0]


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("other", PATHS)
def test_targets_mean_the_same_type_however_it_is_written(key: Any, other: Any) -> None:
    assert pruned(config(0.1, {key: 0.9}).without(other)) == [2, 0, 0, 0]
    assert pruned(config(0.1, {key: 0.9}).only_for(other)) == [0, 18, 18, 18]


def test_a_path_that_cannot_be_loaded_is_a_type_where_it_is_known() -> None:
    asked = config(None, {"my.module.Net": 0.9, "my.module.Other": 0.1}).only_for("my.module.Net")
    assert asked.module_type_configs == {"my.module.Net": at(0.9)}
    assert asked.module_name_configs == {}


def test_only_for_keeps_the_global_schedule() -> None:
    asked = MagnitudePrunerConfig(
        global_config=at(0.5, RAMP),
        module_name_configs={"head": at(0.9), "stem": at(0.7, ConstantSparsitySchedule())},
        module_type_configs={Wide: None},
    )
    asked.only_for("head", "stem", nn.Linear)
    assert asked.module_name_configs["head"] == at(0.9, RAMP)
    assert asked.module_name_configs["stem"] == at(0.7, ConstantSparsitySchedule())
    assert asked.module_type_configs == {Wide: None, nn.Linear: at(0.5, RAMP)}
    assert pruned(asked) == [14, 2, 0, 2]
    asked = MagnitudePrunerConfig(
        global_config=at(0.5, RAMP), module_type_configs={Wide: at(0.9), nn.Linear: at(0.7)}
    ).only_for(nn.Linear)
    assert asked.module_type_configs == {Wide: at(0.9, RAMP), nn.Linear: at(0.7, RAMP)}


@pytest.mark.parametrize("target", ["head", "head.inner", Wide, nn.Linear])
def test_only_for_refuses_what_is_left_dense(target: Any) -> None:
    asked = config(0.1, {nn.Linear: None}, {"head": None})
    with pytest.raises(ValueError, match=r"only_for\('.*'\): what applied to it is None"):
        asked.only_for(target)
    with pytest.raises(ValueError, match="what applied to it is None"):
        config(None).only_for(target)
    assert asked == config(0.1, {nn.Linear: None}, {"head": None})


@pytest.mark.parametrize("method", ["only_for", "without"])
def test_a_target_that_is_missing_or_no_pattern_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="no target is given; allowed: module names, classes"):
        getattr(config(0.1), method)()
    with pytest.raises(ValueError, match="is no regular expression"):
        getattr(config(0.1), method)("a(")
    with pytest.raises(PruningError, match="matches no module"):
        MagnitudePruner(Net(), getattr(config(0.1), method)("haed")).prepare()


def everything() -> MagnitudePrunerConfig:
    """A config that says something at every level."""
    specs = {
        "weight": PruningSpec(target_sparsity=0.9, pruning_scheme=ChannelStructured(axis=1)),
        "in_proj_weight": PruningSpec(pruning_scheme=BlockStructured(block_shape=(2, -1))),
        "*": None,
    }
    pattern = PruningSpec(pruning_scheme=NMStructured(n=2, m=4, axis=0), pruning_algo="random")
    inner = at(0.3, RAMP, module_state_spec={"*": PruningSpec(pruning_algo=Largest)})
    inner.op_type_config = {"linear": op(0.7), "conv1d": None}
    inner.op_name_config = {r"a\.linear_1": OpMagnitudePrunerConfig(op_state_spec={"*": pattern})}
    wide: Any = {
        "op_state_spec": specs,
        "sparsity_schedule": ConstantSparsitySchedule(begin_step=3),
    }
    return MagnitudePrunerConfig(
        global_config=at(0.1, RAMP),
        module_type_configs={nn.Linear: wide, Wide: inner, "my.module.Net": None},
        module_name_configs={r"body\.\d+": inner, "head": None},
        allocation="erdos_renyi",
        allow_regrowth=False,
    )


def test_a_config_is_written_in_plain_values_and_read_back_equal() -> None:
    asked = everything()
    values = asked.to_dict()
    assert list(values) == [KEY] == ["magnitude_pruning_config"]
    assert yaml.safe_load(yaml.safe_dump(values)) == values
    types = values[KEY]["module_type_configs"]
    assert list(types) == ["torch.nn.Linear", f"{Wide.__module__}.Wide", "my.module.Net"]
    assert types["torch.nn.Linear"]["sparsity_schedule"] == {"type": "constant", "begin_step": 3}
    spec = values[KEY]["module_name_configs"][r"body\.\d+"]["module_state_spec"]["*"]
    assert spec["pruning_algo"] == f"{__name__}.Largest"
    assert types["torch.nn.Linear"]["op_state_spec"]["weight"]["pruning_algo"] == "default"
    again = MagnitudePrunerConfig.from_dict(values)
    assert again == asked != MagnitudePrunerConfig()
    assert list(again.module_type_configs) == [nn.Linear, Wide, "my.module.Net"]
    assert again.to_dict() == values
    assert MagnitudePrunerConfig(**asked.model_dump()) == asked


@pytest.mark.parametrize("asked", [everything(), MagnitudePrunerConfig()], ids=["all", "default"])
def test_yaml_is_read_from_text_path_and_file(asked: MagnitudePrunerConfig, tmp_path: Path) -> None:
    path = tmp_path / "it's a=b, ü.yaml"
    text = asked.to_yaml(path)
    assert path.read_text(encoding="utf-8") == text == asked.to_yaml()
    assert list(path.parent.glob(".*")) == []
    assert MagnitudePrunerConfig.from_yaml(text) == asked
    assert MagnitudePrunerConfig.from_yaml(path) == asked
    assert MagnitudePrunerConfig.from_yaml(str(path)) == asked
    assert MagnitudePrunerConfig.from_yaml(io.StringIO(text)) == asked
    with path.open(encoding="utf-8") as file:
        assert MagnitudePrunerConfig.from_yaml(file) == asked


def test_short_yaml_is_text_and_no_path() -> None:
    assert MagnitudePrunerConfig.from_yaml(f"{KEY}:") == MagnitudePrunerConfig()
    nothing = MagnitudePrunerConfig.from_yaml(f"{{{KEY}: {{global_config: null}}}}")
    assert nothing == MagnitudePrunerConfig(global_config=None)


def test_what_is_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"under the key '{KEY}'; found: nothing"):
        MagnitudePrunerConfig.from_dict({})
    with pytest.raises(ValueError, match="found: global_config"):
        MagnitudePrunerConfig.from_dict({"global_config": None})
    with pytest.raises(ValueError, match=r"found: .*, other"):
        MagnitudePrunerConfig.from_dict({KEY: {}, "other": {}})
    with pytest.raises(ValueError, match="must hold a mapping"):
        MagnitudePrunerConfig.from_yaml("- a\n- b\n")
    with pytest.raises(FileNotFoundError):
        MagnitudePrunerConfig.from_yaml(tmp_path / "missing.yaml")
    with pytest.raises(FileNotFoundError):
        MagnitudePrunerConfig.from_yaml(str(tmp_path / "missing.yaml"))


def test_a_schedule_that_is_not_registered_cannot_be_written_down() -> None:
    class Duck:
        def compute_sparsity(self, *_: Any) -> float:
            return 0.5

    asked = config(0.1).set_module_name("head", at(0.5, Duck()))
    with pytest.raises(ValueError, match=r"Duck.*cannot be written down; allowed: .*register"):
        asked.to_yaml()
