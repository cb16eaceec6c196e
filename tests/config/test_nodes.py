"""Schemas are derived from the pydantic classes, and cannot drift from them."""

from collections.abc import Iterator
from typing import Literal

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from pydantic import BaseModel, Field

from coreai_opt.config.schemas.nodes import Node, model_of_target, nodes, register_nodes, schema_of
from coreai_opt.pruning import config
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    PolynomialDecaySchedule,
    SparsityScheduleBase,
)
from coreai_opt.pruning.spec import NMStructured, PruningScheme, PruningSpec, Unstructured


@pytest.mark.parametrize("node", nodes(), ids=lambda node: f"{node.group}/{node.name}")
def test_a_schema_has_the_fields_of_its_class_and_holds_their_defaults(node: Node) -> None:
    schema = OmegaConf.structured(schema_of(node.model, node.target))
    assert set(schema) == {"_target_", *node.model.model_fields}
    for name, info in node.model.model_fields.items():
        if info.is_required():
            assert OmegaConf.is_missing(schema, name)
        elif info.default_factory is None and not isinstance(info.default, BaseModel):
            assert schema[name] == info.default


class Inner(BaseModel):
    size: int = 3


class Everything(BaseModel):
    needed: int
    share: float = 0.5
    word: Literal["a", "b"] = "a"
    maybe: int | None = None
    either: int | str = 4
    many: list[int] = [1, 2]
    ordered: tuple[float, ...] = (0.5, 1.0)
    pair: tuple[int, str] = (1, "a")
    inner: Inner = Field(default_factory=Inner)
    named: dict[str, Inner] = Field(default_factory=dict)


def test_types_are_kept_where_omegaconf_has_them() -> None:
    schema = OmegaConf.structured(schema_of(Everything))
    assert OmegaConf.is_missing(schema, "needed")
    assert OmegaConf.is_missing(schema, "inner")
    schema.either = "text"
    merged = OmegaConf.merge(schema, {"inner": {"size": 5}, "named": {"x": {"size": 1}}})
    assert (merged.inner.size, merged.named.x.size) == (5, 1)
    assert (schema.ordered, schema.pair) == ([0.5, 1.0], [1, "a"])
    assert OmegaConf.merge(schema, {"ordered": [1, 2, 3]}).ordered == [1.0, 2.0, 3.0]
    bad_values = {"share": "x", "maybe": "x", "many": ["x"], "ordered": ["x"], "needed": "x"}
    for key, bad in bad_values.items():
        with pytest.raises(ValueError, match="could not be converted"):
            schema[key] = bad


def test_registering_twice_does_no_harm_and_every_node_is_there() -> None:
    register_nodes()
    register_nodes()
    repository = ConfigStore.instance().repo
    for node in nodes():
        assert f"{node.name}.yaml" in repository["schema"][node.group]


@pytest.fixture
def own_schedule() -> Iterator[type[SparsityScheduleBase]]:
    @SparsityScheduleBase.register("half_way")
    class HalfWay(SparsityScheduleBase):
        middle: int = 5

        def compute_sparsity(
            self, step_count: int, target_sparsity: float, prev_sparsity: float | None = None
        ) -> float:
            return target_sparsity if step_count > self.middle else target_sparsity / 2

    yield HalfWay
    ConfigStore.instance().repo["schema"]["schedule"].pop("half_way.yaml", None)


def test_a_registered_schedule_gets_its_node(own_schedule: type[SparsityScheduleBase]) -> None:
    node = next(node for node in nodes() if node.name == "half_way")
    schema = OmegaConf.structured(schema_of(node.model, node.target))
    assert schema.middle == 5
    assert model_of_target(node.target) is own_schedule


@pytest.mark.parametrize("scheme", [Unstructured(), NMStructured(n=1, m=4)], ids=str)
def test_a_scheme_that_is_a_default_stands_there_as_it_is_dumped(scheme: PruningScheme) -> None:
    class Spec(BaseModel):
        pattern: PruningScheme = scheme

    schema = OmegaConf.structured(schema_of(Spec))
    assert schema.pattern == scheme.model_dump()
    assert next(iter(schema.pattern)) == "type"


def test_the_targets_of_our_schedules_are_what_the_package_exports() -> None:
    targets = {node.name: node.target for node in nodes() if node.group == "schedule"}
    names = {
        "constant": "ConstantSparsitySchedule",
        "poly": "PolynomialDecaySchedule",
        "cosine": "CosineSparsitySchedule",
        "exponential": "ExponentialSparsitySchedule",
        "multistep": "MultiStepSparsitySchedule",
    }
    assert targets == {
        option: f"coreai_opt.pruning.config.{name}" for option, name in names.items()
    }
    assert all(hasattr(config, name) for name in names.values())


def test_a_schedule_of_ones_own_keeps_its_module_whatever_it_is_called() -> None:
    @SparsityScheduleBase.register("theirs")
    class Theirs(ConstantSparsitySchedule):
        __module__ = "their.schedules"
        __qualname__ = "Theirs"

    assert model_of_target("their.schedules.Theirs") is Theirs
    assert model_of_target("their.Theirs") is None


def test_the_class_of_a_node_is_found_by_its_target() -> None:
    target = "coreai_opt.pruning.config.PolynomialDecaySchedule"
    assert model_of_target(target) is PolynomialDecaySchedule
    assert model_of_target("their.module.Schedule") is None


def test_a_required_field_is_missing_in_the_schema() -> None:
    schema = schema_of(PolynomialDecaySchedule)
    assert schema().total_iters == MISSING


def test_a_spec_that_nothing_is_said_about_has_a_whole_scheme() -> None:
    assert PruningSpec().pruning_scheme == Unstructured()
    assert PruningSpec() == PruningSpec(pruning_scheme=Unstructured())
    assert (
        PruningSpec().model_dump_json()
        == PruningSpec(pruning_scheme={"type": "unstructured"}).model_dump_json()
    )
