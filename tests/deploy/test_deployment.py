"""Deployment: artefacts, their bytes, their outputs and their times, against the dense model."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.deploy import Artefact, DeployError, deploy, registry
from coreai_opt.deploy.sizes import dense_twin, share_of_zeros
from coreai_opt.models import MLP
from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig


def pruned(model: nn.Module, sparsity: float) -> nn.Module:
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.uniform(sparsity))
    pruner.prepare()
    return pruner.finalize().eval()


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_dense_twin_has_no_zeros_and_all_else(inputs: Tensor) -> None:
    model = pruned(MLP((1, 8, 8), 10, [32]), 0.9)
    twin = dense_twin(model)
    assert share_of_zeros(model) == pytest.approx(0.9, abs=0.001)
    assert share_of_zeros(twin) == 0.0
    for name, value in model.state_dict().items():
        kept = value != 0
        assert torch.equal(twin.state_dict()[name][kept], value[kept])


@pytest.mark.slow  # processes that are measured import torch
def test_artefacts_are_written_compared_and_timed(tmp_path: Path, inputs: Tensor) -> None:
    model = pruned(MLP((1, 8, 8), 10, [512, 512]), 0.95).train()
    before, threads = copy.deepcopy(model.state_dict()), torch.get_num_threads()
    made = deploy(
        model, inputs, ["torch", "sparse_cpu"], tmp_path / "it's here", batch_sizes=(1, 8)
    )
    assert json.loads(json.dumps(made.to_dict()))["targets"].keys() == {"torch", "sparse_cpu"}
    assert made.is_sparse
    assert made.zeros == pytest.approx(0.95, abs=0.001)
    for name, one in made.targets.items():
        assert (one.error, one.cannot_run) == (None, None)
        written = [tmp_path / "it's here" / path for path in one.files]
        assert [path.parent.name for path in written] == [name]
        assert one.bytes == sum(path.stat().st_size for path in written)
        assert one.compressed_bytes is not None
        assert one.dense_compressed_bytes is not None
        assert one.compressed_bytes < 0.2 * one.dense_compressed_bytes
        assert one.largest_difference is not None
        assert one.largest_difference < 1e-5
        assert (one.agreement, one.examples) == (1.0, 40)
        assert one.latency is not None
        assert list(one.latency) == ["1", "8"]
        assert all(0 < times.p50_ms <= times.p95_ms for times in one.latency.values())
        assert one.peak_bytes is not None
        assert one.dense_peak_bytes is not None
    assert torch.get_num_threads() == threads
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class _Failing:
    name, extra = "failing", None

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        raise DeployError(self.name, "its sigmoid is not known")


class _Elsewhere:
    """Writes a file, and cannot compute here."""

    name, extra = "elsewhere", None

    def build(self, model: nn.Module, example: Tensor, directory: Path) -> Artefact:
        (directory / "model").mkdir()
        (directory / "model" / "part").write_bytes(b"0" * 1000)
        return Artefact((directory / "model",), None, "it computes on a phone only")


def test_a_target_that_fails_or_cannot_run_here_says_so_and_the_others_are_made(
    tmp_path: Path, inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (_Failing, _Elsewhere):
        monkeypatch.setitem(
            registry.TARGETS, kind.name, registry._Entry("torch_targets", kind.__name__)
        )
        monkeypatch.setattr(f"coreai_opt.deploy.torch_targets.{kind.__name__}", kind, raising=False)
    monkeypatch.setitem(registry.TARGETS, "absent", registry._Entry("no_such_module", "No"))
    model = pruned(MLP((1, 8, 8), 10, [16]), 0.9)
    wanted = ["failing", "absent", "elsewhere"]
    made = deploy(model, inputs, wanted, tmp_path, batch_sizes=[2]).targets
    assert made["failing"].error == "failing: its sigmoid is not known"
    assert made["absent"].error is not None
    assert "is not installed: pip install 'hydra-coreai-opt[absent]'" in made["absent"].error
    assert (made["elsewhere"].bytes, made["elsewhere"].latency) == (1000, None)
    assert made["elsewhere"].cannot_run == "it computes on a phone only"


@pytest.mark.parametrize(
    ("outputs", "agreement"),
    [
        (lambda x: {"logits": x.flatten(1)[:, :3]}, 1.0),
        (lambda x: (x.flatten(1).sum(1), "more"), None),
    ],
    ids=["a dict", "one number each"],
)
def test_outputs_of_other_kinds_are_compared(
    tmp_path: Path, inputs: Tensor, outputs: Any, agreement: float | None
) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, images: Tensor) -> Any:
            return outputs(self.layer(images))

    made = deploy(pruned(Odd(), 0.5), inputs, ["torch"], tmp_path, batch_sizes=[1]).targets["torch"]
    assert (made.error, made.largest_difference, made.agreement) == (None, 0.0, agreement)
    assert made.peak_bytes is None  # a class within a function cannot be pickled


def test_wrong_arguments_are_refused(tmp_path: Path, inputs: Tensor) -> None:
    model = MLP((1, 8, 8), 10, [16])
    with pytest.raises(
        ValueError, match="no target is called 'sparse_gpu'; allowed: torch, sparse_cpu"
    ):
        deploy(model, inputs, ["sparse_gpu"], tmp_path)
    with pytest.raises(ValueError, match="there are no inputs"):
        deploy(model, inputs[:0], ["torch"], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        deploy(model, inputs, ["torch"], tmp_path / "file")
    assert not deploy(model, inputs, [], tmp_path / "none").is_sparse
