"""Forms that the converters of Core ML and Core AI read."""

import copy
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from coreai_opt import CoreMLExportError
from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePruner,
    MagnitudePrunerConfig,
    PruningError,
    to_backend,
)


def net() -> nn.Module:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    return nn.ModuleDict({"conv": nn.Conv2d(3, 8, 3), "attention": attention})


CONFIG = MagnitudePrunerConfig.uniform(0.75)
SPARSE = {"conv": "weight", "attention": "in_proj_weight", "attention.out_proj": "weight"}


def test_core_ml_gets_buffers_beside_plain_weights() -> None:
    pruner = MagnitudePruner(net(), CONFIG)
    model = pruner.prepare()
    weights = {name: weight.clone() for name, weight in model["conv"].named_parameters()}
    final = pruner.finalize(backend="coreml")
    state = final.state_dict()
    assert state.keys() - net().state_dict().keys() == {
        "_COREML_/metadata_version",
        *(f"{module}._COREML_/{name}/compression_type" for module, name in SPARSE.items()),
    }
    assert torch.equal(state["_COREML_/metadata_version"], torch.tensor(1))
    assert torch.equal(state["conv._COREML_/weight/compression_type"], torch.tensor([1]))
    assert torch.equal(state["conv.bias"], weights["bias"])
    assert torch.count_nonzero(state["conv.weight"]) == 54
    # It can be prepared, and finalized, again.
    again = MagnitudePruner(final, CONFIG)
    again.prepare()
    assert again.finalize(backend="coreml").state_dict().keys() == state.keys()


def test_a_model_that_was_pruned_in_place_gets_the_same_form() -> None:
    model, other = net(), net()
    other.load_state_dict(model.state_dict())
    in_place = InPlacePruner(model, CONFIG)
    in_place.prepare()
    pruner = MagnitudePruner(other, CONFIG)
    pruner.prepare()
    made, wanted = to_backend(model, "coreml"), pruner.finalize(backend="coreml")
    assert made is model
    assert made.state_dict().keys() == wanted.state_dict().keys()


def test_weights_of_few_zeros_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8))
    with torch.no_grad():
        model[0].weight.view(-1)[:1] = 0  # 1 of 32
        model[1].weight.view(-1)[:2] = 0
    assert [name for name, _ in to_backend(model, "coreml").named_buffers()] == [
        "_COREML_/metadata_version",
        "1._COREML_/weight/compression_type",
    ]


def test_the_form_of_torch_is_plain() -> None:
    model = net()
    before = list(model.state_dict())
    assert list(to_backend(model, "torch").state_dict()) == before


def test_what_cannot_be_exported_is_refused_in_a_sentence() -> None:
    prepared = net()
    MagnitudePruner(prepared, CONFIG).prepare()
    with pytest.raises(PruningError, match=r"carries masks; .*pruner.finalize\(\)"):
        to_backend(prepared, "coreml")
    model = nn.Linear(4, 4).to(torch.bfloat16)
    nn.init.zeros_(model.weight)
    with pytest.raises(CoreMLExportError, match=r"weight \(bfloat16\); allowed: float16, float32"):
        to_backend(model, "coreml")


def test_weights_that_others_compute_are_left_to_them() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert [name for name, _ in to_backend(model, "coreml").named_buffers()] == [
        "_COREML_/metadata_version",
        "1._COREML_/weight/compression_type",
    ]


@pytest.mark.skipif(find_spec("coreai_torch") is not None, reason="coreai-torch is installed")
def test_core_ai_without_its_package_says_what_to_install() -> None:
    pruner = MagnitudePruner(nn.Linear(4, 4), CONFIG)
    model = pruner.prepare()
    with pytest.raises(NotImplementedError, match=r"pip install 'hydra-coreai-opt\[coreai\]'"):
        pruner.finalize(backend="coreai")
    assert parametrize.is_parametrized(model, "weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_core_ai_gets_sparse_parametrizations(dtype: torch.dtype) -> None:
    pytest.importorskip("coreai_torch", reason="needs the extra coreai")
    pruner = MagnitudePruner(nn.Linear(8, 4).to(dtype), CONFIG)
    model = pruner.prepare()
    inputs = torch.randn(3, 8, dtype=dtype)
    outputs = model(inputs)
    final = pruner.finalize(backend="coreai")
    assert torch.equal(final(inputs), outputs)
    assert torch.equal(copy.deepcopy(final)(inputs), outputs)
    assert final.parametrizations.weight.original.shape == (8,)
    state = final.state_dict()
    assert state["parametrizations.weight.0.mask"].dtype == torch.bool
    other = nn.Linear(4, 4).double()
    nn.init.zeros_(other.weight)
    with pytest.raises(NotImplementedError, match=r"'coreai' has no numbers .*\(float64\)"):
        to_backend(other, "coreai")
