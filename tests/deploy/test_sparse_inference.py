"""Sparse layers for the CPU: the same outputs, only where they gain, saved without pickles."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.deploy import sparse_inference as module
from coreai_opt.deploy.sparse_inference import load_sparse, save_sparse, to_sparse
from coreai_opt.deploy.sparse_layers import SparseLinear, SparsePointwise, sparse_kind
from coreai_opt.models import MLP, TransformerClassifier
from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig

MISSING = r"layers\.1"


def pruned(model: nn.Module, sparsity: float = 0.9) -> nn.Module:
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.uniform(sparsity))
    pruner.prepare()
    return pruner.finalize().eval()


@pytest.fixture
def all_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert whatever can be: what is faster differs from machine to machine."""
    monkeypatch.setattr(module, "MARGIN", 0.0)
    monkeypatch.setattr(module, "_is_faster", lambda *_: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (2, 3, 7), (1, 1, 7)])
def test_a_sparse_linear_layer_computes_the_same(shape: tuple[int, ...], bias: bool) -> None:
    layer = pruned(nn.Linear(7, 4, bias), 0.75)
    inputs = torch.randn(shape)
    sparse = SparseLinear.of(layer)
    assert sparse.values.numel() == 7
    torch.testing.assert_close(sparse(inputs), layer(inputs))
    torch.testing.assert_close(copy.deepcopy(sparse)(inputs), layer(inputs))
    torch.testing.assert_close(pickle.loads(pickle.dumps(sparse))(inputs), layer(inputs))


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
def test_a_sparse_pointwise_convolution_computes_the_same(stride: int | tuple[int, int]) -> None:
    layer = pruned(nn.Conv2d(6, 4, 1, stride), 0.5)
    assert sparse_kind(layer) is SparsePointwise
    for batch in (1, 3):
        inputs = torch.randn(batch, 6, 5, 4)
        torch.testing.assert_close(SparsePointwise.of(layer)(inputs), layer(inputs))


def test_new_values_are_computed_with() -> None:
    layer = SparseLinear.of(pruned(nn.Linear(6, 4)))
    inputs, other = torch.randn(2, 6), SparseLinear.of(pruned(nn.Linear(6, 4)))
    layer(inputs)
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(layer(inputs), other(inputs))
    torch.testing.assert_close(layer.double()(inputs.double()), other.double()(inputs.double()))


class Own(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + 1


@pytest.mark.parametrize(
    "layer",
    [
        Own(3, 3),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 3),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        nn.ReLU(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_compute_otherwise_stay(layer: nn.Module) -> None:
    assert sparse_kind(layer) is None


@pytest.mark.usefixtures("all_gain")
@pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning")
@pytest.mark.parametrize("make", [MLP, TransformerClassifier])
def test_a_model_is_converted_saved_and_loaded(tmp_path: Path, make: type[nn.Module]) -> None:
    model = pruned(make((1, 8, 8), 10))
    before = copy.deepcopy(model.state_dict())
    example = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        sparse = to_sparse(model, example, seconds=0.001)
        assert sparse.layers
        assert all(layer.converted for layer in sparse.layers)
        torch.testing.assert_close(sparse.model(example), model(example))
        save_sparse(sparse, tmp_path / "it's.pt")
        assert [path.name for path in tmp_path.iterdir()] == ["it's.pt"]
        loaded = load_sparse(make((1, 8, 8), 10), tmp_path / "it's.pt")
        assert torch.equal(loaded(example), sparse.model(example))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_does_not_gain_stays_dense_and_says_from_where_it_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The sparse form gains from 80 % on.
    def speedup(candidate: module._Candidate, seconds: float) -> dict[int, float]:
        weight = candidate.module.weight
        zeros = 1 - torch.count_nonzero(weight) / weight.numel()
        return {size: 0.5 + float(zeros > 0.79) for size in candidate.inputs}

    monkeypatch.setattr(module, "_speedup", speedup)
    monkeypatch.setattr(module, "_is_faster", lambda *_: True)
    model, example = MLP((1, 8, 8), 10, [16]), torch.randn(2, 1, 8, 8)
    dense = to_sparse(pruned(copy.deepcopy(model), 0.5), example)
    assert [(layer.converted, layer.gains_from) for layer in dense.layers] == [(False, 0.8)] * 2
    assert not any(isinstance(one, SparseLinear) for one in dense.model.modules())
    sparse = to_sparse(pruned(copy.deepcopy(model), 0.95), example)
    assert [(layer.converted, layer.gains_from) for layer in sparse.layers] == [(True, 0.8)] * 2
    # As a whole it is slower: all stays dense.
    monkeypatch.setattr(module, "_is_faster", lambda *_: False)
    kept = to_sparse(pruned(model, 0.95), example)
    assert [layer.converted for layer in kept.layers] == [False, False]
    assert not any(isinstance(one, SparseLinear) for one in kept.model.modules())


def test_other_files_and_networks_are_refused(
    tmp_path: Path, all_gain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pruned(MLP((1, 4, 4), 3, [8]))
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="is not what save_sparse writes"):
        load_sparse(model, tmp_path / "plain.pt")
    save_sparse(to_sparse(model, torch.randn(1, 1, 4, 4), seconds=0.001), tmp_path / "sparse.pt")
    with pytest.raises(ValueError, match=MISSING):
        load_sparse(nn.Linear(4, 4), tmp_path / "sparse.pt")
    with pytest.raises(ValueError, match=r"layers.3 is \[3, 8\] there, \[4, 8\] here"):
        load_sparse(MLP((1, 4, 4), 4, [8]), tmp_path / "sparse.pt")
