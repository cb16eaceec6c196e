"""2:4 weights for sparse tensor cores: what is converted, and why not."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    save_pruned,
    to_semi_structured,
)
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig
from coreai_opt.pruning.spec import NMStructured, PruningSpec

SEMI = "coreai_opt.pruning.masks.semi_structured"

FOUR = PruningSpec(pruning_scheme=NMStructured(n=2, m=4))
CONFIG = MagnitudePrunerConfig(global_config=ModuleMagnitudePrunerConfig(op_state_spec={"*": FOUR}))


def sparse(model: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    pruner = MagnitudePruner(model, CONFIG)
    pruner.prepare()
    return pruner.finalize().to(dtype).eval()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (sparse(nn.Linear(64, 32)), "it is on the device cpu; allowed: cuda"),
        (sparse(nn.Linear(64, 32), torch.bfloat16), "it is on the device cpu"),
        (nn.Linear(64, 32).half(), "not 2:4 sparse"),
        (nn.Linear(6, 32).half(), "not 2:4 sparse"),
        (nn.Linear(3, 3).half(), "not 2:4 sparse"),
        (sparse(nn.Linear(64, 32), torch.float32), "torch.float32; allowed: torch.float16, torch."),
        (sparse(nn.Linear(64, 16)), "16 rows and 64 columns; allowed: multiples of 32 rows and of"),
        (sparse(nn.Linear(32, 32)), "32 rows and 32 columns"),
        (MagnitudePruner(nn.Linear(64, 32), CONFIG).prepare(), "finalize the model first"),
        (nn.Linear(64, 32, device="meta"), "on the device meta"),
        (nn.LazyLinear(4), "it is a LazyLinear"),
    ],
)
def test_a_layer_that_is_not_converted_has_a_reason(model: nn.Module, reason: str) -> None:
    weight = model.weight
    found = to_semi_structured(nn.Sequential(nn.ReLU(), model))
    assert list(found) == ["1"]
    assert reason in str(found["1"])
    assert torch.is_tensor(weight)
    assert type(model.weight) is type(weight)


def test_one_group_with_three_weights_is_not_2_4_sparse() -> None:
    model = sparse(nn.Linear(64, 32))
    group = model.weight.data.view(-1, 4)[100]
    group[:3], group[3] = 1, 0
    assert "not 2:4 sparse" in str(to_semi_structured(model)[""])


def test_only_linear_layers_are_listed_and_attention_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 4), nn.MultiheadAttention(64, 2), nn.Linear(64, 64))
    found = to_semi_structured(sparse(model))
    assert list(found) == ["1.out_proj", "2"]
    assert "NonDynamicallyQuantizableLinear" in str(found["1.out_proj"])


def test_torch_without_it_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.sparse, "to_sparse_semi_structured")
    assert "has no torch.sparse.to_sparse_semi" in str(to_semi_structured(nn.Linear(4, 4))[""])


def test_what_torch_refuses_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(weight: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel\nat line 1")

    model = sparse(nn.Linear(64, 32))
    before = model.weight.clone()
    monkeypatch.setattr(f"{SEMI}._problem_of_device", lambda _: None)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", refuse)
    assert to_semi_structured(model) == {"": "torch refuses it: RuntimeError: no kernel"}
    assert torch.equal(model.weight, before)


def test_a_weight_that_cannot_be_multiplied_with_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = sparse(nn.Linear(64, 32))
    monkeypatch.setattr(f"{SEMI}._problem_of_device", lambda _: None)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: weight[:, 1:])
    assert str(to_semi_structured(model)[""]).startswith("torch refuses it: RuntimeError: ")
    assert model.weight.shape == (32, 64)


def test_a_weight_that_torch_takes_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sparse(nn.Linear(64, 32))
    monkeypatch.setattr(f"{SEMI}._problem_of_device", lambda _: None)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: weight * 2)
    doubled = model.weight.detach() * 2
    assert to_semi_structured(model) == {"": None}
    assert torch.equal(model.weight, doubled)
    assert isinstance(model.weight, nn.Parameter)
    assert not model.weight.requires_grad


def test_an_old_gpu_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from coreai_opt.pruning.masks.semi_structured import _problem_of_device

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "capability 7.5; allowed: 8.0" in str(_problem_of_device(torch.device("cuda")))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert _problem_of_device(torch.device("cuda")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_a_2_4_layer_is_converted_and_computes_the_same(dtype: torch.dtype) -> None:
    layers = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    dense = sparse(layers, dtype).cuda()
    model = copy.deepcopy(dense)
    found = to_semi_structured(model)
    assert found["0"] is None
    assert "10 rows" in str(found["2"])
    batch = torch.randn(32, 128, device="cuda", dtype=dtype)
    torch.testing.assert_close(model(batch), dense(batch), rtol=1e-2, atol=1e-2)
    assert "already" in str(to_semi_structured(model)["0"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_masks_are_saved_from_and_loaded_onto_a_gpu(tmp_path: Path) -> None:
    from coreai_opt.pruning import load_pruned, summary

    model = MagnitudePruner(nn.Linear(8, 8).cuda()).prepare()
    save_pruned(model, tmp_path)
    pruner = load_pruned(nn.Linear(8, 8).cuda(), tmp_path)
    assert torch.equal(pruner.model.weight, model.weight)
    assert summary(pruner.model, torch.rand(2, 8).cuda()).layers[0].nonzero == 32
