"""The API as it is documented since 0.4: imports, backends, registries, what can be pruned."""

import pickle
import subprocess
import sys
from typing import Any

import pytest
from torch import nn

import coreai_opt
from coreai_opt.common import ExportBackend
from coreai_opt.pruning import MagnitudePruner, OpMagnitudePrunerConfig
from coreai_opt.pruning import PruningSpec as FromThePackage
from coreai_opt.pruning.config import ConstantSparsitySchedule, SparsityScheduleBase
from coreai_opt.pruning.spec import (
    ChannelStructured,
    NMStructured,
    PruneImplBase,
    PruningScheme,
    PruningSpec,
    Unstructured,
)
from tests.helpers.pruning import RAMP, net, prepared, zeros


def test_the_package_has_its_names() -> None:
    assert coreai_opt.ExportBackend is ExportBackend
    assert issubclass(coreai_opt.CoreMLExportError, ValueError)
    assert issubclass(coreai_opt.DependencyVersionWarning, UserWarning)
    assert coreai_opt.__version__
    assert FromThePackage is PruningSpec


def test_the_names_need_no_torch() -> None:
    code = (
        "import sys, coreai_opt; from coreai_opt.pruning import PruningSpec, MagnitudePrunerConfig;"
        "coreai_opt.ExportBackend, coreai_opt.CoreMLExportError; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_backend_is_its_string() -> None:
    assert [ExportBackend.Torch, ExportBackend.CoreML, ExportBackend.CoreAI] == [
        "torch",
        "coreml",
        "coreai",
    ]
    assert f"{ExportBackend.CoreAI}" == "coreai"
    assert ExportBackend("coreml") is ExportBackend.CoreML
    assert pickle.loads(pickle.dumps(ExportBackend.CoreAI)) is ExportBackend.CoreAI


@pytest.mark.parametrize(("former", "today"), [("MIL", "coreml"), ("MLIR", "coreai")])
def test_former_names_warn_where_they_are_used(former: str, today: str) -> None:
    makers: list[Any] = [
        lambda: getattr(ExportBackend, former),
        lambda: ExportBackend[former],
        lambda: ExportBackend(former.lower()),
    ]
    for make in makers:
        with pytest.warns(DeprecationWarning, match=f"{former} is deprecated") as seen:
            assert make() is ExportBackend(today)
        assert [warning.filename for warning in seen] == [__file__]


def test_former_names_are_no_members() -> None:
    assert list(ExportBackend) == ["torch", "coreml", "coreai"]
    assert list(ExportBackend.__members__) == ["Torch", "CoreML", "CoreAI"]
    with pytest.raises(AttributeError, match="ONNX"):
        _ = ExportBackend.ONNX


@pytest.mark.parametrize("backend", ["CoreML", "onnx", 5, None])
def test_an_unknown_backend_is_one_sentence(backend: Any) -> None:
    pruner, model = prepared()
    with pytest.raises(ValueError, match="allowed: torch, coreml, coreai"):
        pruner.finalize(backend=backend)
    assert nn.utils.parametrize.is_parametrized(model[0])


@pytest.mark.parametrize("backend", ["torch", ExportBackend.Torch])
def test_finalize_takes_backends_and_strings(backend: Any) -> None:
    pruner, model = prepared()
    assert pruner.finalize(backend=backend) is model
    assert list(model.state_dict()) == list(net().state_dict())


def test_export_to_core_ml_raises_the_error_of_the_api() -> None:
    pruner, model = prepared()
    model.double()
    for backend in ("coreml", ExportBackend.CoreML):
        sentence = r"'coreml' has no numbers of the type of .*\(float64\).*; allowed: float16"
        with pytest.raises(coreai_opt.CoreMLExportError, match=sentence):
            pruner.finalize(backend=backend)
    # Refused before anything is folded in.
    assert nn.utils.parametrize.is_parametrized(model[0])


@pytest.mark.parametrize("same", [True, False], ids=["same pruner", "another"])
def test_a_finalized_model_may_be_prepared_again(same: bool) -> None:
    pruner, model = prepared(0.5, RAMP)
    pruner.step(3)
    pruner.finalize()
    folded = zeros(model)
    again = pruner if same else MagnitudePruner(model, pruner.config)
    again.prepare()
    assert again.step_count == 0
    assert zeros(model) == folded  # step 0 asks for none; what was folded is 0 already
    again.step(6)
    assert zeros(model) == [31, 22]
    assert list(again.finalize().state_dict()) == list(net().state_dict())


def test_the_types_that_can_be_pruned() -> None:
    kinds = MagnitudePruner.supported_modules()
    assert {nn.Linear, nn.Conv1d, nn.ConvTranspose3d, nn.MultiheadAttention} <= set(kinds)
    assert all(issubclass(kind, nn.Module) for kind in kinds)
    assert not isinstance(nn.ReLU(), kinds)
    assert MagnitudePruner(net()).supported_modules() == kinds


def test_the_default_specs_are_told() -> None:
    half = PruningSpec(target_sparsity=0.5)
    assert OpMagnitudePrunerConfig.get_default_state_spec() == {
        "weight": half,
        "in_proj_weight": half,
    }


def test_an_unstructured_scheme_has_no_axis() -> None:
    assert Unstructured().axis is None
    for dumped in (
        Unstructured().model_dump(),
        {"type": "unstructured", "axis": None},
        {"axis": None, "type": "unstructured"},
    ):
        scheme = PruningScheme.maybe_build_from_dict(dumped)
        assert scheme == Unstructured()
        assert scheme.axis is None  # type: ignore[attr-defined]
    assert Unstructured(axis=None) == Unstructured()
    with pytest.raises(ValueError, match="axis"):
        Unstructured(axis=0)
    dumped = {"axis": 1, "type": "channel_structured"}
    assert PruningScheme.maybe_build_from_dict(dumped) == ChannelStructured(axis=1)


@pytest.mark.parametrize(
    ("base", "known"),
    [
        (SparsityScheduleBase, ConstantSparsitySchedule),
        (PruningScheme, Unstructured),
        (PruneImplBase, None),
    ],
    ids=["schedules", "schemes", "criteria"],
)
def test_a_key_can_be_taken_back(base: Any, known: Any) -> None:
    first, second = type("First", (base,), {}), type("Second", (base,), {})
    base.register("mine")(first)
    assert base.REGISTRY["mine"] is first is base.get_class("mine")
    assert first in base.list_registry_values()
    with pytest.raises(ValueError, match="already registered"):
        base.register("mine")(second)
    del base.REGISTRY["mine"]
    assert "mine" not in base.list_registry_keys()
    with pytest.raises(ValueError, match="'mine'"):
        base.get_class("mine")
    base.register("mine")(second)
    assert base.get_class("mine") is second
    if known is not None:
        assert base.REGISTRY is known.REGISTRY


@pytest.mark.parametrize(
    ("key", "instead"), [("n_m_structured", "'n_m'"), ("block_structured", "'block'")]
)
def test_keys_of_an_announced_change_are_reserved(key: str, instead: str) -> None:
    with pytest.raises(ValueError, match=f"{key}' is reserved.*allowed: {instead}"):
        PruningSpec(pruning_scheme={"type": key, "axis": 1, "n": 2, "m": 4})
    assert key not in PruningScheme.REGISTRY


@pytest.mark.parametrize(
    "scheme", [Unstructured(), ChannelStructured(axis=1), NMStructured(n=1, m=4)], ids=repr
)
def test_a_scheme_is_built_from_its_dump_by_its_class(scheme: Any) -> None:
    assert type(scheme)(**scheme.model_dump()) == scheme
    assert type(scheme).model_validate(scheme.model_dump()) == scheme
    with pytest.raises(ValueError, match="type"):
        type(scheme)(**{**scheme.model_dump(), "type": "block"})
